"""What a changed model means for the instances: `update-instances`, and the table of needs."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labctl.cli.context import current_context
from labctl.cli.output import Output, print_document
from labctl.cli.wishes import Deadline, Name, NoWait, parse_deadline
from labctl.errors import InvalidError

if TYPE_CHECKING:
    from labctl.controller.models import InstanceNeed
    from labctl.planner import Impact


def update_instances(
    name: Name,
    instances: Annotated[
        list[str] | None, typer.Argument(metavar="INSTANCE", help="For example web_3.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every instance.")] = False,
    timeout: Deadline = None,
    no_wait: NoWait = False,
) -> None:
    """Give instances the newest model now: no batches, no health gate, no way back.

    What only needs a restart or extensions keeps its OS disk. `labctl upgrade start` does the
    same in batches.
    """
    if bool(instances) == all_:
        raise InvalidError(
            "both instances and --all are named" if all_ else "no instance is named",
            hint=f"name instances, or give --all: labctl update-instances {name} --all",
        )
    from labctl.cli.follow import follow, last_event, opened_lab
    from labctl.controller.clock import now
    from labctl.controller.goal import instances_as_wanted
    from labctl.controller.models import update_instances as record_update
    from labctl.store.instances import load_instances

    context = current_context()
    deadline = parse_deadline(timeout)
    names = instances or ["--all"]
    with opened_lab(context) as lab:
        lab.check()
        since = last_event(lab.database)
        with lab.database.write() as connection:
            chosen = record_update(connection, name, instances or [], now=now())
            present = {i.name for i in load_instances(connection, name)}
        message = "" if chosen else "nothing to update, the newest model is there already"
        if no_wait and chosen:
            message = f"recorded; run: {shlex.join(('labctl', 'update-instances', name, *names))}"
        elif not no_wait:
            # Also what an earlier run has recorded and did not bring to its end.
            goal = instances_as_wanted(frozenset(chosen or instances or present))
            outcome = follow(context, lab, name, goal, deadline=deadline, since=since)
            message = f"{message}; {outcome.message}" if message else outcome.message
    if context.output is Output.TABLE:
        print(f"{name}: {message}")
    else:
        document = {"name": name, "updated": list(chosen), "message": message}
        print_document(document, context.output)


def print_needs(impacts: "Sequence[Impact]", needs: "Sequence[InstanceNeed]") -> None:
    """What a change needs, for people: by field, then by instance."""
    for impact in impacts:
        print(f"  {impact.field}: {impact.need.value}  ({impact.reason})")
    for each in needs:
        print(f"  {each.instance}: {each.need.value}  (has model {each.model_revision})")


def describe_needs(impacts: "Sequence[Impact]", needs: "Sequence[InstanceNeed]") -> dict[str, Any]:
    """The same for programs; `need` is the most that a field needs."""
    from labctl.planner import find_need

    return {
        "need": find_need(impacts).value,
        "impacts": [
            {"field": i.field, "need": i.need.value, "reason": i.reason, "reruns": list(i.reruns)}
            for i in impacts
        ],
        "instances": [
            {"instance": n.instance, "modelRevision": n.model_revision, "need": n.need.value}
            for n in needs
        ],
    }
