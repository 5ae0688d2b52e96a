"""For whom a command runs: for a person at this host, or for a client of the API."""

import os

from labctl.errors import RefusedError
from labctl.settings import REMOTE_SCOPE

_ADMIN = "admin"


def is_for_client() -> bool:
    """Was it started by `labctl serve`, for a client?"""
    return REMOTE_SCOPE in os.environ


def may_reach_host() -> bool:
    """May it read any file of this host, and have programs run on it?"""
    return os.environ.get(REMOTE_SCOPE, _ADMIN) == _ADMIN


def refuse_for_client(option: str) -> None:
    """Refuse an option that leads away from the server's own lab, wherever it stood."""
    if is_for_client():
        raise RefusedError(
            f"{option} cannot be given to a command that the server runs",
            hint="the server has its own state directory and hypervisor",
        )
