"""Shows failures: three lines and an exit code; the log keeps what only developers need."""

import errno
import json
import os
import select
import shlex
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

import typer
from typer.exceptions import TyperException

from labctl.cli.context import current_options
from labctl.cli.output import Output, format_line
from labctl.errors import ExitCode, HostError, LabError
from labctl.settings import load_settings, make_passable

INTERRUPTED = "interrupted; the work so far is kept, run the same command again to continue"
CLOSED_PIPE = 141  # 128 + SIGPIPE, as any program that writes to a closed pipe

EXIT_CODES = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "the work was tried and did not succeed",
    ExitCode.INVALID: "the command line or the spec is wrong; nothing was changed",
    ExitCode.NOT_FOUND: "the named scale set, instance, image or upgrade does not exist",
    ExitCode.REFUSED: "the state of things forbids it",
    ExitCode.TIMED_OUT: "the deadline passed; the same command continues",
    ExitCode.HOST: "the host is not ready; `labctl doctor` says what is missing",
    ExitCode.INTERRUPTED: "Ctrl-C; the same command continues",
}


def show_error(error: LabError) -> None:
    """Print an error to stderr: `labctl: brief`, the detail indented, `next: hint`.

    With `-o json` it is one JSON object instead.
    """
    if current_options().output is Output.JSON:
        content = {
            "code": error.exit_code.name,
            "message": error.brief,
            "detail": error.detail,
            "hint": error.hint,
        }
        print(json.dumps({"error": content}, ensure_ascii=False), file=sys.stderr)
        return
    lines = [f"labctl: {error.brief}"]
    lines += [f"  {line}" for line in error.detail.splitlines()]
    if error.hint:
        lines.append(f"next: {error.hint}")
    # What a guest or a hook said may be quoted.
    shown = (format_line(part) for line in lines for part in line.split("\n"))
    print("\n".join(shown), file=sys.stderr)


def exit_code_of(error: BaseException, arguments: Sequence[str]) -> int:
    """Show any exception that ended a command, and tell the exit code of the program."""
    match error:
        case SystemExit():
            return _code_of(error)
        case typer.Exit():
            return error.exit_code
        case KeyboardInterrupt():
            show_error(_InterruptedError(INTERRUPTED))
            return ExitCode.INTERRUPTED
        case typer.Abort():
            show_error(LabError("not confirmed; nothing was changed"))
            return ExitCode.FAILED
        case LabError():
            if current_options().verbose and error.__cause__ is not None:
                traceback.print_exception(error)
            show_error(error)
            return error.exit_code
        case TyperException():
            show_error(_translate(error))
            return ExitCode.INVALID
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            show_error(_no_space(error))
            return ExitCode.HOST
        case BrokenPipeError() if _is_stdout_closed():
            return CLOSED_PIPE
    _show_crash(error, arguments)
    return ExitCode.FAILED


class _InterruptedError(LabError):
    """Ctrl-C."""

    exit_code = ExitCode.INTERRUPTED


class _UsageError(LabError):
    """The command line is wrong."""

    exit_code = ExitCode.INVALID


def _no_space(error: OSError) -> LabError:
    """Say where the disk is full, as far as the kernel said it."""
    where = f" for {str(error.filename)!r}" if error.filename else ""
    return HostError(
        f"no space left{where}",
        detail=error.strerror or str(error),
        hint="free space, then run the same command again; labctl doctor shows how much there is",
    )


def _translate(error: TyperException) -> LabError:
    """Say in our form what Typer found wrong with the command line."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "labctl"
    possibilities = sorted(getattr(error, "possibilities", None) or ())
    # Typer appends its own "(Possible options: ...)"; the plain message leaves room for ours.
    brief = error.message if possibilities else error.format_message()
    if possibilities:
        brief = f"{brief.rstrip('.')}; did you mean {' or '.join(possibilities)}?"
    brief = brief.replace("Value error, ", "")  # pydantic's words, which Typer passes through
    brief = " ".join(brief.split())  # choices come in a line each
    return _UsageError(brief, hint=f"run: {command} --help")


def _code_of(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    print(error.code, file=sys.stderr)
    return ExitCode.FAILED


def _is_stdout_closed() -> bool:
    """Is the broken pipe our own stdout, and not some connection to a guest?"""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):  # stdout is no file
        return False
    watch = select.poll()
    watch.register(number, 0)  # asks only whether the other end is gone
    if not any(state & (select.POLLERR | select.POLLHUP) for _, state in watch.poll(0)):
        return False
    # Python flushes once more at its end; there must be something to write to.
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return True


def _show_crash(error: BaseException, arguments: Sequence[str]) -> None:
    story = "".join(traceback.format_exception(error))
    if current_options().verbose:
        print(story, file=sys.stderr, end="")
    try:
        hint = f"report it with {_write_crash_log(story, arguments)}; -v shows more"
    except OSError as failure:
        hint = f"no log could be written ({failure}); run it again with -v"
    show_error(
        LabError(
            "internal error, which is a fault of labctl",
            detail=f"{type(error).__name__}: {error}",
            hint=hint,
        )
    )


def _write_crash_log(story: str, arguments: Sequence[str]) -> Path:
    """Write the traceback and the command to a file of its own; tell where."""
    text = f"command: {shlex.join(('labctl', *arguments))}\n{story}"
    try:
        options = current_options()
        settings = load_settings(state_dir=options.state_dir, uri=options.uri)
        folder = settings.state_dir / "log"
        make_passable(settings.state_dir)
        folder.mkdir(exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="crash-", suffix=".log", dir=folder)
    except (OSError, LabError):
        handle, name = tempfile.mkstemp(prefix="labctl-crash-", suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return Path(name)
