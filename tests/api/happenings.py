"""What happens to instances, as rows."""

from datetime import timedelta

from labctl.controller.clock import now
from labctl.model.hook import HookKind
from labctl.model.instance import ExtensionRun, HookFailure
from labctl.store.instances import save_hook_failure
from tests.api.labs import load, save_run
from tests.api.serving import Api


def fail_extension(api: Api, instance: str, extension: str, *, exit_code: int = 3) -> None:
    """Let an extension end on an instance that is ready; badly, unless told otherwise."""
    found = next(i for i in load(api, instance.rpartition("_")[0]).instances if i.name == instance)
    ready_at = found.current.ready_at or now()
    run = ExtensionRun(
        name=extension,
        started_at=ready_at,
        finished_at=ready_at + timedelta(milliseconds=5),
        exit_code=exit_code,
        output="hello\nworld\n",
    )
    save_run(api, instance, run, generation=found.generation)


def refuse_drain(api: Api, instance: str) -> None:
    """Let the drain of an instance fail just now."""
    failure = HookFailure(kind=HookKind.DRAIN, at=now(), message="it has sessions")
    with api.desk.database.write() as connection:
        save_hook_failure(connection, instance, failure)
