"""`labctl serve`: the controller as a daemon."""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from labctl.cli.context import Context, current_context
from labctl.cli.output import Output, format_moment
from labctl.cli.progress import LineProgress
from labctl.errors import InvalidError

if TYPE_CHECKING:
    from labctl.cli.serve_api import ApiOptions
    from labctl.model.event import Event
    from labctl.model.plan import Action, Plan, ScaleSet

_DAY = timedelta(days=1)


def serve(
    first_within: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="Switched on, a scale set gets its first automatic upgrade within this time.",
        ),
    ] = "3h",
    rollout_after: Annotated[
        str,
        typer.Option(
            metavar="FROM-TO",
            help="How long after a version is offered its rollout begins; spread over the span.",
        ),
    ] = "30m-60m",
    systemd_unit: Annotated[
        bool, typer.Option("--systemd-unit", help="Print a unit file for this program, and exit.")
    ] = False,
    init: Annotated[
        bool,
        typer.Option("--init", help="Set the API up: certificates, ids, a first token; and exit."),
    ] = False,
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="With --init: a further name or address of this host; may be repeated.",
        ),
    ] = None,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where the API listens; port 0 means any.")
    ] = "127.0.0.1:8443",
    tls_cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Your own certificate for the API, with its chain."),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its key; default: in the file of the certificate."),
    ] = None,
    no_api: Annotated[bool, typer.Option("--no-api", help="Serve no API.")] = False,
) -> None:
    """Run the controller: works on every scale set, and upgrades those that ask for it by itself.

    Pulls newer images that definitions follow, too. Stays in the foreground. SIGTERM and Ctrl-C end
    it once what is under way is at rest; instances run on, and the next start, or any other
    command, continues. Once it was set up by --init, it serves the REST API, too.
    """
    context = current_context()
    from labctl.cli.serve_api import ApiOptions, open_door, running_api, set_up_api
    from labctl.planner import Timing

    later_from, dash, later_to = rollout_after.partition("-")
    timing = Timing(
        first_within=_parse("--first-within", first_within),
        later_from=_parse("--rollout-after", later_from),
        later_to=_parse("--rollout-after", later_to if dash else later_from),
    )
    if timing.later_to < timing.later_from:
        raise InvalidError(
            f"--rollout-after {rollout_after!r} ends before it begins",
            hint="write it like 30m-60m, or like 30m for one fixed time",
        )
    api = ApiOptions(listen=listen, is_off=no_api, certificate=tls_cert, key=tls_key)
    api.check()
    if host and not init:
        raise InvalidError("--host goes with --init", hint="run: labctl serve --init --host NAME")
    if systemd_unit:
        print(_make_unit(context, first_within, rollout_after, api), end="")
        return
    if init:
        set_up_api(context, api, tuple(host or ()))
        return
    from labctl.cli.follow import opened_lab
    from labctl.controller.board import Board
    from labctl.controller.serve import Daemon
    from labctl.drivers.service_manager import ServiceManager

    manager, board = ServiceManager(os.environ), Board()
    teller = _Teller(context)
    door = open_door(context.settings, api)
    with (
        door.socket if door else nullcontext(),
        opened_lab(context) as lab,
        _stopped_by_signals() as stop,
    ):

        def run_beside() -> AbstractContextManager[None]:
            # Not before: a second daemon of this state directory is refused and serves nothing.
            teller.say(f"serving {str(context.settings.state_dir)!r} on {context.settings.uri}")
            if door is None and not no_api:
                teller.say("no API; to get it, run once: labctl serve --init")
            return running_api(door, lab, board, teller.say) if door else nullcontext()

        Daemon(
            lab, timing=timing, watcher=teller, manager=manager, board=board, beside=run_beside
        ).run(stop)
        teller.say("stopped; instances run on")


@dataclass(slots=True)
class _Teller:
    """One line for each event on stdout, or one JSON object each line with `-o json`."""

    context: Context

    def say(self, message: str) -> None:
        """Tell something about the daemon itself."""
        from labctl.controller.clock import now

        self.note(now(), "labctl", message)

    def event(self, event: "Event") -> None:
        """Something happened in a scale set."""
        self._write(event.at, event.subject, event.kind.value, event.message)

    def note(self, at: datetime, subject: str, message: str) -> None:
        """The daemon itself has something to say."""
        self._write(at, subject, "note", message)

    def update(self, scale_set: "ScaleSet", plan: "Plan", busy: "dict[str, Action]") -> None:
        """Nothing: the events tell it."""

    def _write(self, at: datetime, subject: str, kind: str, message: str) -> None:
        if self.context.output is Output.TABLE:
            LineProgress(sys.stdout).event(at, subject, kind, message)
            return
        line = {"at": format_moment(at), "subject": subject, "kind": kind, "message": message}
        print(json.dumps(line, ensure_ascii=False), flush=True)


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        stop.set()
        signal.signal(number, signal.SIG_DFL)  # sent again, it ends us at once

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, on_signal) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _parse(option: str, text: str) -> timedelta:
    from labctl.model.quantity import parse_duration

    try:
        found = parse_duration(text)
    except ValueError as error:
        raise InvalidError(f"{option} {text!r} {error}") from error
    if found > _DAY:
        raise InvalidError(f"{option} {text!r} is longer than a day", hint="for example 3h or 30s")
    return found


_UNIT = """\
[Unit]
Description=labctl: scale sets of virtual machines
{after}

[Service]
Type=notify
ExecStart={python} -P -m labctl --state-dir {state_dir} --uri {uri} serve {options}
Restart=on-failure
RestartSec=2
WatchdogSec=60
TimeoutStopSec=180
# Playbooks that run, and a session's libvirtd with its machines, must outlive the daemon.
KillMode=process
UMask=0077

[Install]
WantedBy={target}
"""
_AFTER_SYSTEM = """\
After=libvirtd.service virtlogd.service network.target
Wants=libvirtd.service"""


def _make_unit(context: Context, first_within: str, rollout_after: str, api: "ApiOptions") -> str:
    from labctl.drivers.host_access import is_local, is_system

    # A user's service manager has no multi-user.target, and libvirt starts a session's libvirtd.
    is_session = is_local(context.settings.uri) and not is_system(context.settings.uri)
    return _UNIT.format(
        after="After=basic.target" if is_session else _AFTER_SYSTEM,
        target="default.target" if is_session else "multi-user.target",
        # However it was started: argv[0] is a script, or a module that nobody may execute.
        python=_quote(sys.executable),
        state_dir=_quote(str(context.settings.state_dir)),
        uri=_quote(context.settings.uri),
        options=" ".join(
            word if word.startswith("--") else _quote(word)
            for word in (
                *api.words,
                *("--first-within", first_within, "--rollout-after", rollout_after),
            )
        ),
    )


def _quote(word: str) -> str:
    """For a unit file, in which % and $ mean something, too."""
    for char in ("\\", '"'):
        word = word.replace(char, f"\\{char}")
    return '"' + word.replace("%", "%%").replace("$", "$$") + '"'
