"""What every command starts from: settings, output format, the terminal, the store."""

import os
import sys
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from labctl.cli.output import Output
from labctl.errors import InvalidError
from labctl.settings import Settings, load_settings

if TYPE_CHECKING:
    from labctl.store.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options that every command takes, as given; None: not given."""

    state_dir: Path | None = None
    uri: str | None = None
    output: Output = Output.TABLE
    verbose: bool = False
    is_local_forbidden: bool = False  # a server is named, and no command may run here


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One run of one command."""

    settings: Settings
    output: Output
    is_tty: bool  # stdout is a terminal that can redraw lines
    verbose: bool

    @property
    def story(self) -> TextIO:
        """Where progress goes: stdout, unless that carries JSON or YAML."""
        return sys.stdout if self.output is Output.TABLE else sys.stderr


_options: ContextVar[Options] = ContextVar("labctl_options")


def current_options() -> Options:
    """What the command line has said so far."""
    return _options.get(Options())


def set_options(options: Options) -> None:
    """Start anew, at the begin of a run."""
    _options.set(options)


def set_state_dir(value: Path | None) -> None:
    """Take over `--state-dir`, wherever it stood; None: it was not given there."""
    if value is not None:
        _options.set(replace(current_options(), state_dir=value))


def set_uri(value: str | None) -> None:
    """Take over `--uri`, wherever it stood; None: it was not given there."""
    if value is not None:
        _options.set(replace(current_options(), uri=value))


def set_output(value: Output | None) -> None:
    """Take over `--output`, wherever it stood; None: it was not given there."""
    if value is not None:
        _options.set(replace(current_options(), output=value))


def set_verbose(*, value: bool) -> None:
    """Take over `--verbose`, wherever it stood."""
    if value:
        _options.set(replace(current_options(), verbose=True))


def forbid_local_lab() -> None:
    """From now on no command of this run gets at the lab of this host."""
    _options.set(replace(current_options(), is_local_forbidden=True))


def current_context() -> Context:
    """Resolve the options of this run and start its log.

    Call it in the main thread, at the start of a command.

    Raises InvalidError when the environment names no usable state directory.
    """
    from labctl.cli.logs import start_log

    options = current_options()
    if options.is_local_forbidden:
        raise InvalidError(
            "a server is named, and --help stands where it is the value of an option",
            hint="leave it out; nothing was done",
        )
    start_log(verbose=options.verbose)
    return Context(
        settings=load_settings(state_dir=options.state_dir, uri=options.uri),
        output=options.output,
        is_tty=sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb",
        verbose=options.verbose,
    )


def open_store(settings: Settings) -> "Database":
    """Open the store of the state directory, made and migrated when needed.

    Raises HostError when it cannot be written. Close it with `contextlib.closing`.
    """
    from labctl.store.database import Database

    return Database(settings.database)
