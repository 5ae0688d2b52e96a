"""What happens to instances, as rows."""

from datetime import timedelta

from labctl.controller.clock import now
from labctl.model.instance import ExtensionRun
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
