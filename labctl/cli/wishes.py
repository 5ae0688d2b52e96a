"""Options and questions that several commands share."""

import sys
from datetime import timedelta
from typing import Annotated

import typer

from labctl.errors import InvalidError

Name = Annotated[str, typer.Argument(metavar="SCALE_SET", help="The scale set.")]
Deadline = Annotated[
    str | None,
    typer.Option("--timeout", metavar="TIME", help='Give up waiting after, for example, "30m".'),
]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Only record the wish; the next command does the work.")
]


def parse_deadline(text: str | None) -> timedelta | None:
    """Read the value of --timeout."""
    if text is None:
        return None
    from labctl.model.quantity import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise InvalidError(f"--timeout {text!r} {error}") from error


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless `--yes` was given. Raises InvalidError where nobody can answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidError(f"{question} nobody can answer here", hint="give --yes")
    if not typer.confirm(question):
        raise typer.Abort
