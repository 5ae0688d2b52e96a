"""The options that every command takes, wherever they stand on the line."""

from pathlib import Path
from typing import Annotated

import typer

from labctl import __version__
from labctl.cli import context as run
from labctl.cli.caller import refuse_for_client
from labctl.cli.output import Output

PROGRAM = "labctl"


def _take_state_dir(value: Path | None) -> Path | None:
    if value is not None:
        refuse_for_client("--state-dir")
    run.set_state_dir(value)
    return value


def _take_uri(value: str | None) -> str | None:
    if value is not None:
        refuse_for_client("--uri")
    run.set_uri(value)
    return value


def _take_nothing(value: str | None) -> None:
    """Options of clients are taken out before; one that is left is the value of another option."""
    if value is not None:
        raise typer.BadParameter("it must stand where an option can stand, not as a value")


def _take_output(value: Output | None) -> Output | None:
    run.set_output(value)
    return value


def _take_verbose(value: bool) -> bool:
    run.set_verbose(value=value)
    return value


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        metavar="PATH",
        callback=_take_state_dir,
        expose_value=False,
        help="Where labctl keeps everything (or LABCTL_STATE_DIR).",
    ),
]
Uri = Annotated[
    str | None,
    typer.Option(
        "--uri",
        metavar="URI",
        callback=_take_uri,
        expose_value=False,
        help="The libvirt connection (or LABCTL_URI).",
    ),
]
Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        callback=_take_nothing,
        expose_value=False,
        help="Run the command on the host of this labctl serve (or LABCTL_SERVER).",
    ),
]
Authority = Annotated[
    str | None,
    typer.Option(
        "--ca",
        metavar="FILE",
        callback=_take_nothing,
        expose_value=False,
        help="With --server: trust this CA alone (or LABCTL_CA).",
    ),
]
TokenFile = Annotated[
    str | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        callback=_take_nothing,
        expose_value=False,
        help="With --server: the file (0600) with the token (or LABCTL_TOKEN_FILE, LABCTL_TOKEN).",
    ),
]
OutputFormat = Annotated[
    Output | None,
    typer.Option(
        "--output",
        "-o",
        callback=_take_output,
        expose_value=False,
        help="How results are printed; default: table.",
    ),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        callback=_take_verbose,
        expose_value=False,
        help="Tell more, on stderr.",
    ),
]
Version = Annotated[
    bool,
    typer.Option(
        "--version",
        callback=_show_version,
        expose_value=False,
        is_eager=True,
        help="Print the version and exit.",
    ),
]
