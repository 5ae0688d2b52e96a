"""The tree of commands. A command's module is imported when the command is used, not before."""

import importlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group
from typing_extensions import override

from labctl.cli import context as run
from labctl.cli.caller import is_for_client
from labctl.cli.errors import EXIT_CODES, exit_code_of
from labctl.cli.remote_words import asks_about_labctl, take_target
from labctl.cli.shared_options import (
    PROGRAM,
    Authority,
    OutputFormat,
    Server,
    StateDir,
    TokenFile,
    Uri,
    Verbose,
    Version,
)

_SHARED = (
    "state_dir",
    "uri",
    "server",
    "ca",
    "token_file",
    "output",
    "verbose",
)  # options that every command takes
_Command = TyperCommand | TyperGroup
_SCALE_SET = "labctl.cli.scaleset"
_INSTANCE = "labctl.cli.instance"
_UPGRADE = "labctl.cli.upgrade"
_CONTROL = "labctl.cli.upgrade_control"
_IMAGE = "labctl.cli.image"
_OFFER = "labctl.cli.offer"
_ROLLOUT = "labctl.cli.rollout"
_PUBLISHER = "labctl.cli.publisher"
_FOLLOWING = "labctl.cli.following"
_MODEL = "labctl.cli.model"
_REPAIRS = "labctl.cli.repairs"
_NOTIFY = "labctl.cli.notify"
_PROTECTION = "labctl.cli.protection"
_TOKEN = "labctl.cli.token"  # noqa: S105  a module


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A command: a function, or a whole `typer.Typer`, of a module."""

    module: str
    attribute: str
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A group of commands."""

    summary: str
    entries: Mapping[str, Leaf]


def _leaf(module: str, attribute: str, summary: str) -> Leaf:
    return Leaf(module=module, attribute=attribute, summary=summary)


# The order here is the order in the help.
TREE: Mapping[str, Leaf | Branch] = {
    "apply": _leaf(_SCALE_SET, "apply", "Make a scale set as its spec says, or change it"),
    "update-instances": _leaf(_MODEL, "update_instances", "Give instances the newest model now"),
    "get": _leaf(_SCALE_SET, "get", "Print the spec of a scale set"),
    "export": _leaf("labctl.cli.arm", "export", "Print a scale set as a spec or an ARM template"),
    "import": _leaf("labctl.cli.arm", "import_", "Turn an ARM resource or template into a spec"),
    "show": _leaf(_SCALE_SET, "show", "Show a scale set with its instances"),
    "list": _leaf(_SCALE_SET, "list_", "List the scale sets"),
    "scale": _leaf(_SCALE_SET, "scale", "Change the number of instances"),
    "delete": _leaf(_SCALE_SET, "delete", "Delete a scale set; its data disks stay"),
    "events": _leaf(_SCALE_SET, "events", "List what happened"),
    "rerun": _leaf(_SCALE_SET, "rerun", "Run custom data or extensions again"),
    "why": _leaf(_SCALE_SET, "why", "Explain what an instance is doing or waiting for"),
    "instance": Branch(
        summary="Look at and operate single instances",
        entries={
            "list": _leaf(_INSTANCE, "list_", "List instances"),
            "show": _leaf(_INSTANCE, "show", "Show one instance"),
            "start": _leaf(_INSTANCE, "start", "Start an instance"),
            "stop": _leaf(_INSTANCE, "stop", "Stop an instance and keep it stopped"),
            "restart": _leaf(_INSTANCE, "restart", "Stop an instance and start it again"),
            "reimage": _leaf(_INSTANCE, "reimage", "Give an instance a fresh OS disk"),
            "protect": _leaf(_PROTECTION, "protect", "Protect an instance from scale-in and more"),
            "unprotect": _leaf(_PROTECTION, "unprotect", "Take protection away"),
            "ssh": _leaf(_INSTANCE, "ssh", "Log in, or run a command in the guest"),
            "console": _leaf(_INSTANCE, "console", "Attach to the serial console"),
            "logs": _leaf(_INSTANCE, "logs", "Print the log of the serial console"),
        },
    ),
    "upgrade": Branch(
        summary="Roll a newer image over a scale set",
        entries={
            "plan": _leaf(_UPGRADE, "plan", "Tell what an upgrade would do, batch by batch"),
            "start": _leaf(_UPGRADE, "start", "Upgrade the OS disks in batches"),
            "status": _leaf(_UPGRADE, "status", "Show the latest upgrade"),
            "watch": _leaf(_UPGRADE, "watch", "Follow a running upgrade to its end"),
            "cancel": _leaf(_UPGRADE, "cancel", "Stop after the present batch"),
            "pause": _leaf(_CONTROL, "pause", "Begin no further batch for now"),
            "resume": _leaf(_CONTROL, "resume", "Let a paused upgrade go on"),
            "approve": _leaf(_CONTROL, "approve", "Let the batch begin that waits for approval"),
            "reject": _leaf(_CONTROL, "reject", "End the upgrade that waits for approval"),
            "history": _leaf(_UPGRADE, "history", "List past upgrades"),
            "show": _leaf(_UPGRADE, "show", "Show one upgrade with the evidence of failures"),
        },
    ),
    "image": Branch(
        summary="Build, import, publish and list images",
        entries={
            "build": _leaf(_IMAGE, "build", "Build an image from a recipe and import it"),
            "import": _leaf(_IMAGE, "import_", "Verify a disk image and keep a copy of it"),
            "list": _leaf(_IMAGE, "list_", "List the images of the gallery"),
            "show": _leaf(_IMAGE, "show", "Show one image and who uses it"),
            "publish": _leaf(_OFFER, "publish", "Offer an image as `latest`"),
            "exclude": _leaf(_OFFER, "exclude", "Keep an image from being `latest`"),
            "replicate": _leaf(_OFFER, "replicate", "Let an image be used in more regions"),
            "retire": _leaf(_OFFER, "retire", "Set the end of life of an image"),
            "watch": _leaf(_ROLLOUT, "watch", "Tell which scale sets would take which image"),
            "delete": _leaf(_IMAGE, "delete", "Delete an image that nothing uses"),
            "publishers": _leaf(_PUBLISHER, "publishers", "List the publishers of images"),
            "offers": _leaf(_PUBLISHER, "offers", "List what a publisher offers"),
            "skus": _leaf(_PUBLISHER, "skus", "List the SKUs of an offer"),
            "versions": _leaf(_PUBLISHER, "versions", "List the versions of a SKU"),
            "pull": _leaf(_PUBLISHER, "pull", "Download, verify and import an image"),
            "follow": _leaf(_FOLLOWING, "follow", "Let `serve` pull newer versions by itself"),
            "unfollow": _leaf(_FOLLOWING, "unfollow", "Pull no newer versions any more"),
            "followed": _leaf(_FOLLOWING, "followed", "List what follows a publisher, and how"),
        },
    ),
    "serve": _leaf(
        "labctl.cli.serve", "serve", "Run the controller as a daemon; upgrades by itself"
    ),
    "token": Branch(
        summary="Tokens with which programs use the API",
        entries={
            "create": _leaf(_TOKEN, "create", "Make a token; its secret is shown once"),
            "list": _leaf(_TOKEN, "list_", "List the tokens"),
            "revoke": _leaf(_TOKEN, "revoke", "Let a token be good for nothing"),
        },
    ),
    "audit": _leaf("labctl.cli.audit", "audit", "List who asked the API for what"),
    "repairs": Branch(
        summary="Automatic repairs of unhealthy instances",
        entries={
            "status": _leaf(_REPAIRS, "status", "Show whether and what is being repaired"),
            "suspend": _leaf(_REPAIRS, "suspend", "Begin no further repair"),
            "resume": _leaf(_REPAIRS, "resume", "Repair again after a suspension"),
            "history": _leaf(_REPAIRS, "history", "List repairs"),
        },
    ),
    "notify": Branch(
        summary="Who is told what happens",
        entries={
            "list": _leaf(_NOTIFY, "list_", "List receivers, and how far each was told"),
            "test": _leaf(_NOTIFY, "send", "Send a test to receivers"),
        },
    ),
    "disk": Branch(
        summary="Data disks, which outlive instances and scale sets",
        entries={
            "list": _leaf("labctl.cli.disk", "list_", "List data disks"),
            "delete": _leaf("labctl.cli.disk", "delete", "Delete a data disk that nothing uses"),
        },
    ),
    "doctor": _leaf("labctl.cli.doctor", "doctor", "Check this host; --fix mends what it can"),
    "schema": _leaf("labctl.cli.schema", "schema", "Print the JSON Schema of specs, for editors"),
    "example": _leaf("labctl.cli.example", "example", "Print a commented spec to start from"),
}

_EPILOG = "\b\nExit codes:\n" + "\n".join(
    f"{code.value:>3}  {meaning}" for code, meaning in EXIT_CODES.items()
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; the value is the exit code of the program."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal cannot write must not end a command half way.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    run.set_options(run.Options())
    if is_for_client():
        from labctl.drivers.parent import end_with_parent

        end_with_parent()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the server
    try:
        target, rest = take_target(words, os.environ)
        if target is not None and asks_about_labctl(rest, os.environ):
            run.forbid_local_lab()  # `--help` may stand where it is the value of an option
        elif target is not None:
            from labctl.cli.remote import run_remotely

            code = run_remotely(target, rest, known=_list_known())
            if code is not None:
                return code
        root = get_command(app)
        if f"_{PROGRAM.upper()}_COMPLETE" in os.environ:
            root.main(rest, prog_name=PROGRAM)  # answers the shell, then ends the program
        with root.make_context(PROGRAM, rest) as context:
            root.invoke(context)
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # pressed again, it ends us at once
        return exit_code_of(error, words)
    except BaseException as error:  # noqa: BLE001  the one place that turns failures into exit codes
        return exit_code_of(error, words)
    return 0


def _list_known() -> dict[str, tuple[str, ...]]:
    """The commands, and for groups what is in them."""
    return {
        name: tuple(entry.entries) if isinstance(entry, Branch) else ()
        for name, entry in TREE.items()
    }


class LazyGroup(TyperGroup):
    """A group that knows its commands by name and summary until one of them is used."""

    def fill(self, entries: Mapping[str, Leaf | Branch]) -> None:
        """Add the entries, without importing them."""
        for name, entry in entries.items():
            if isinstance(entry, Branch):
                group = LazyGroup(
                    name=name,
                    help=f"{entry.summary}.",
                    short_help=entry.summary,
                    rich_markup_mode=None,
                )
                group.fill(entry.entries)
                self.add_command(group)
            else:
                self.add_command(_Placeholder(name, entry))

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Show the help when no command is named; that is a mistake, so the exit code says it."""
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help(), err=True)
            raise typer.Exit(2)
        return super().parse_args(ctx, args)

    @override
    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Import the command that is named."""
        name, command, rest = super().resolve_command(ctx, args)
        if isinstance(command, _Placeholder):
            command = command.load()
        if isinstance(command, _Command):
            options = ctx.find_root().command.params
            _add_options(command, [option for option in options if option.name in _SHARED])
        return name, command, rest


class _Root(LazyGroup):
    """The program itself."""

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401  Typer's own arguments
        super().__init__(**attributes)
        self.fill(TREE)


class _Placeholder(TyperCommand):
    """Stands in help and completion for a command that is not imported yet."""

    def __init__(self, name: str, leaf: Leaf) -> None:
        super().__init__(name, short_help=leaf.summary, rich_markup_mode=None)
        self._leaf = leaf

    def load(self) -> _Command:
        """Import the module and make the command."""
        found = getattr(importlib.import_module(self._leaf.module), self._leaf.attribute)
        if isinstance(found, typer.Typer):
            found.info.cls = LazyGroup  # answers and takes options as every group here
            command: _Command = get_group(found)
        else:
            command = cast("_Command", get_command(_wrap(found)))
        command.name = self.name
        command.rich_markup_mode = None
        return command


def _wrap(function: Callable[..., Any]) -> typer.Typer:
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command()(function)
    return single


def _add_options(command: _Command, shared: Sequence[Any]) -> None:
    """Let a command take the shared options, so that they may stand anywhere on the line."""
    taken = {word for parameter in command.params for word in parameter.opts}
    command.params.extend(option for option in shared if not taken & set(option.opts))


app = typer.Typer(cls=_Root, rich_markup_mode=None, epilog=_EPILOG)


@app.callback()
def _root(
    state_dir: StateDir = None,
    uri: Uri = None,
    server: Server = None,
    ca: Authority = None,
    token_file: TokenFile = None,
    output: OutputFormat = None,
    verbose: Verbose = False,
    version: Version = False,
) -> None:
    """Scale sets of real virtual machines on libvirt, with health-gated OS image upgrades."""
