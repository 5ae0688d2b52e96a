"""Which commands a client of the API may have run here, and with which scope."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labctl.errors import InvalidError, RefusedError
from labctl.model.access import Scope

_MOST_WORDS = 1000
_MOST_TEXT = 128 * 1024  # Linux takes no longer word
# Where things are is the server's business, and a command that goes on to a third host is not run.
_LOCAL_OPTIONS = ("--state-dir", "--uri", "--server", "--ca", "--token-file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What one command needs."""

    scope: Scope
    options: Mapping[str, Scope | str]  # a scope that an option needs, or why it is refused
    refusal: str = ""  # why nobody may
    hint: str = ""


def _rule(scope: Scope, options: Mapping[str, Scope | str] | None = None) -> Rule:
    return Rule(scope=scope, options=options or {})


def _refuse(refusal: str, hint: str) -> Rule:
    return Rule(scope=Scope.ADMIN, options={}, refusal=refusal, hint=hint)


_READ, _OPERATE, _ADMIN = (_rule(scope) for scope in Scope)

# By words; a group that is named alone stands for all that is in it.
RULES: Mapping[tuple[str, ...], Rule] = {
    ("apply",): _OPERATE,
    ("update-instances",): _OPERATE,
    ("get",): _OPERATE,  # prints custom data and addresses of webhooks, which may be secret
    ("export",): _OPERATE,  # the same
    ("import",): _refuse("it needs no lab", "run it without --server"),
    ("show",): _READ,
    ("list",): _READ,
    ("scale",): _OPERATE,
    ("delete",): _OPERATE,
    ("events",): _READ,
    ("rerun",): _OPERATE,
    ("why",): _READ,
    ("instance", "list"): _READ,
    ("instance", "show"): _READ,
    ("instance", "start"): _OPERATE,
    ("instance", "stop"): _OPERATE,
    ("instance", "restart"): _OPERATE,
    ("instance", "reimage"): _OPERATE,
    ("instance", "protect"): _OPERATE,
    ("instance", "unprotect"): _OPERATE,
    ("instance", "ssh"): _OPERATE,
    ("instance", "console"): _refuse(
        "the console needs a terminal on the server's host",
        "to read what was written: labctl instance logs INSTANCE",
    ),
    ("instance", "logs"): _READ,
    ("upgrade", "plan"): _READ,
    ("upgrade", "start"): _OPERATE,
    ("upgrade", "status"): _READ,
    # Goes on with the upgrade where its controller died.
    ("upgrade", "watch"): _OPERATE,
    ("upgrade", "cancel"): _OPERATE,
    ("upgrade", "pause"): _OPERATE,
    ("upgrade", "resume"): _OPERATE,
    ("upgrade", "approve"): _OPERATE,
    ("upgrade", "reject"): _OPERATE,
    ("upgrade", "history"): _READ,
    ("upgrade", "show"): _READ,
    ("image", "build"): _rule(Scope.ADMIN, {"--copy-to": "would write on the server's host"}),
    ("image", "import"): _ADMIN,
    ("image", "list"): _READ,
    ("image", "show"): _READ,
    ("image", "publish"): _OPERATE,
    ("image", "exclude"): _OPERATE,
    ("image", "replicate"): _OPERATE,
    ("image", "retire"): _OPERATE,
    ("image", "watch"): _READ,
    ("image", "delete"): _OPERATE,
    ("image", "publishers"): _READ,
    ("image", "offers"): _READ,
    ("image", "skus"): _READ,
    ("image", "versions"): _READ,
    ("image", "pull"): _ADMIN,
    ("image", "follow"): _ADMIN,
    ("image", "unfollow"): _OPERATE,
    ("image", "followed"): _READ,
    ("serve",): _refuse(
        "the daemon is started on its own host", "leave out --server, or unset LABCTL_SERVER"
    ),
    ("repairs", "status"): _READ,
    ("repairs", "suspend"): _OPERATE,
    ("repairs", "resume"): _OPERATE,
    ("repairs", "history"): _READ,
    ("notify", "list"): _READ,
    ("notify", "test"): _OPERATE,
    ("disk", "list"): _READ,
    ("disk", "delete"): _ADMIN,  # there is no way back
    ("token",): _ADMIN,
    ("audit",): _ADMIN,
    ("doctor",): _rule(Scope.READ, {"--fix": Scope.ADMIN}),
    ("schema",): _READ,
    ("example",): _READ,
}


def find_rule(words: Sequence[str]) -> tuple[tuple[str, ...], Rule]:
    """The command that a command line begins with, and its rule.

    Raises InvalidError for what is no command, RefusedError for what only its own host can do.
    """
    if len(words) > _MOST_WORDS or any(len(word) > _MOST_TEXT for word in words):
        raise InvalidError("the command line is too long to be run on the server")
    if any("\0" in word for word in words):
        raise InvalidError("a word of the command line holds a NUL character")
    for length in (2, 1):
        path = tuple(words[:length])
        rule = RULES.get(path) if len(path) == length else None
        if rule is not None:
            break
    else:
        shown = " ".join(words[:2])[:60]
        raise InvalidError(
            f"{shown!r} is no command that this server runs for clients",
            hint="client and server may be of different versions: labctl --version",
        )
    if rule.refusal:
        raise RefusedError(
            f"labctl {' '.join(path)} is not run for clients: {rule.refusal}", hint=rule.hint
        )
    return path, rule


def find_scope(words: Sequence[str]) -> Scope:
    """The scope that a command line needs. Raises as `find_rule` does."""
    path, rule = find_rule(words)
    needed = rule.scope
    for word in _find_options(path, words):
        name = word.partition("=")[0]
        if name in _LOCAL_OPTIONS:
            raise RefusedError(
                f"{name} cannot be given to a command that the server runs",
                hint="the server has its own state directory and hypervisor",
            )
        special = rule.options.get(name)
        if isinstance(special, Scope):
            needed = max(needed, special, key=list(Scope).index)
        elif special is not None:
            raise RefusedError(f"{name} is not taken from clients: it {special}")
    return needed


def _find_options(path: tuple[str, ...], words: Sequence[str]) -> list[str]:
    """Every word that may be an option, even if it is the value of another one."""
    rest = list(words[len(path) :])
    # What follows belongs to the guest. The command itself refuses what slips through here.
    if path == ("instance", "ssh") and "--" in rest:
        rest = rest[: rest.index("--")]
    return [word for word in rest if word.startswith("--")]
