import asyncio
import threading

from labctl.controller import commands
from labctl.controller.commands import Commands, Run
from labctl.errors import RefusedError
from labctl.model.access import Scope
from labctl.settings import Settings


def test_those_that_come_in_one_instant_are_counted_too(tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "_AT_ONCE", 1)
    settings = Settings(state_dir=tmp_path, uri="test:///default")
    known = Commands()

    async def start() -> Run:
        return await known.start(
            settings, ["schema"], scope=Scope.READ, files=[], links={}, stop=threading.Event()
        )

    async def start_all() -> list[Run | BaseException]:
        found = await asyncio.gather(*(start() for _ in range(4)), return_exceptions=True)
        for each in found:
            if isinstance(each, Run):
                each.leave()
                await each.supervisor
        return found

    found = asyncio.run(start_all())
    assert [type(each) for each in found].count(Run) == 1
    assert [type(each) for each in found].count(RefusedError) == 3
    assert known.running == 0
