"""The evidence of an instance that failed, and what hooks said, for people."""

from collections.abc import Iterator, Sequence
from typing import Any

from labctl.cli.output import format_cell, format_line, format_moment
from labctl.model.hook import Hook, Hooks
from labctl.planner import PreviewBatch
from labctl.store.hooks import HookRun


def describe_hooks(hooks: Hooks, batch: PreviewBatch) -> Iterator[str]:
    """Which hooks would run in a batch, and for whom."""
    for word, hook, names in (
        ("before its stop, drain", hooks.drain, batch.drains),
        ("once healthy, undrain", hooks.undrain, batch.undrains),
    ):
        if hook is not None and names:
            yield f"{word} {', '.join(names)} by {_name(hook)}, on failure {hook.on_failure}"


def _name(hook: Hook) -> str:
    return "a script in the guest" if hook.command is None else " ".join(hook.command)


def describe_run(run: HookRun) -> dict[str, object]:
    """One run of a hook, for documents."""
    return {
        "instance": run.instance,
        "upgrade": run.upgrade,
        "hook": run.kind.value,
        "startedAt": run.started_at,
        "finishedAt": run.finished_at,
        "exitCode": run.exit_code,
        "failed": run.has_failed,
        "message": run.message,
        "reason": run.reason,
        "output": run.output,
    }


def print_hook_runs(runs: Sequence[HookRun]) -> None:
    """Print what each hook said."""
    for run in runs:
        how = run.message or ("succeeded" if run.finished_at else "has not ended")
        print(f"\n{format_moment(run.started_at)} {run.instance} {run.kind}: {format_cell(how)}")
        print_lines(run.output, most=6)


def print_evidence(instance: str, found: dict[str, Any]) -> None:
    """Print what was saved of one instance."""
    print(f"\n{instance} failed at {found['rung']}: {format_cell(found['reason'])}")
    print(f"  image {found['imageVersion']}, OS disk {found['generation']}, {found['power']}")
    print("  serial console, last lines:")
    print_lines("\n".join(found["serialTail"]), most=20)
    print("  custom data:")
    print_lines(found["customData"], most=12)
    for run in found["extensions"]:
        print(f"  extension {run['name']!r}: exit code {run['exitCode']}")
        print_lines(run["output"], most=6)
    print("  health answers:")
    for sample in found["healthSamples"][-5:]:
        detail = format_cell(sample["detail"]) if sample["detail"] else ""
        print(f"    {sample['at']}  {sample['state']}  {detail}".rstrip())


def print_lines(text: str, *, most: int | None = None, indent: str = "    ") -> None:
    """Print the last lines of a text; it may be a guest's, which shall not steer a terminal."""
    lines = text.strip().splitlines()
    for line in lines if most is None else lines[-most:]:
        print(f"{indent}{format_line(line)}".rstrip())
