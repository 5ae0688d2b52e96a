"""Finds on a command line whether another host shall run it; imports nothing heavy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labctl.cli.caller import is_for_client, refuse_for_client
from labctl.errors import InvalidError

_OPTIONS = {"--server": "server", "--ca": "ca", "--token-file": "token_file"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Another host's labctl, and how to reach it."""

    server: str
    ca: str | None = None
    token_file: str | None = None
    token: str | None = None


def take_target(
    words: Sequence[str], environment: Mapping[str, str]
) -> tuple[Target | None, list[str]]:
    """Whom the command line names, and the words without that; None: this host.

    Raises InvalidError for an option without its value, or without a server.
    """
    found: dict[str, str] = {}
    rest: list[str] = []
    waiting = iter(words)
    for word in waiting:
        if word == "--":
            rest += [word, *waiting]
            break
        name, equals, value = word.partition("=")
        if name not in _OPTIONS:
            rest.append(word)
            continue
        refuse_for_client(name)
        given = value if equals else next(waiting, None)
        if not given:
            raise InvalidError(f"{name} has no value", hint="run: labctl --help")
        found[_OPTIONS[name]] = given
    if is_for_client():
        return None, rest
    server = found.get("server") or environment.get("LABCTL_SERVER")
    if not server:
        if found:
            raise InvalidError(
                f"--{next(iter(found)).replace('_', '-')} is for --server, which is not given",
                hint="add --server URL, or set LABCTL_SERVER",
            )
        return None, rest
    return Target(
        server=server,
        ca=found.get("ca") or environment.get("LABCTL_CA") or None,
        token_file=found.get("token_file") or environment.get("LABCTL_TOKEN_FILE") or None,
        token=environment.get("LABCTL_TOKEN") or None,
    ), rest


def asks_about_labctl(words: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Is it only asked what there is, which needs no lab: help, the version, completion?"""
    before = words[: words.index("--")] if "--" in words else words
    is_completing = "_LABCTL_COMPLETE" in environment
    # Elsewhere, --version is an option of commands, with the version of an image.
    return is_completing or not words or words[0] == "--version" or "--help" in before
