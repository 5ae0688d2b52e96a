"""The commands that protect single instances."""

from typing import Annotated

import typer

from labctl.cli.context import current_context
from labctl.cli.instance import Names
from labctl.cli.output import Output, print_document
from labctl.errors import InvalidError

FromScaleIn = Annotated[
    bool, typer.Option("--from-scale-in", help="Never chosen when the capacity shrinks.")
]
FromActions = Annotated[
    bool,
    typer.Option(
        "--from-scale-set-actions", help="Left alone by upgrades and automatic repairs, too."
    ),
]


def protect(
    names: Names, from_scale_in: FromScaleIn = False, from_actions: FromActions = False
) -> None:
    """Protect instances; commands for the instance itself still work."""
    if not (from_scale_in or from_actions):
        raise InvalidError(
            "nothing to protect from is named",
            hint="give --from-scale-in, or --from-scale-in --from-scale-set-actions",
        )
    _change(names, scale_in=True if from_scale_in else None, actions=True if from_actions else None)


def unprotect(
    names: Names, from_scale_in: FromScaleIn = False, from_actions: FromActions = False
) -> None:
    """Take protection away; without an option, all of it."""
    is_all = not (from_scale_in or from_actions)
    _change(
        names,
        scale_in=False if from_scale_in or is_all else None,
        actions=False if from_actions or is_all else None,
    )


def _change(names: list[str], *, scale_in: bool | None, actions: bool | None) -> None:
    from labctl.cli.follow import opened_store
    from labctl.controller.clock import now
    from labctl.controller.protection import protect as record_protection

    context = current_context()
    with opened_store(context) as database, database.write() as connection:
        changed = record_protection(
            connection, names, scale_in=scale_in, actions=actions, now=now()
        )
    if context.output is not Output.TABLE:
        print_document({"changed": changed}, context.output)
    elif changed:
        print(f"changed: {', '.join(changed)}")
    else:
        print("nothing to change")
