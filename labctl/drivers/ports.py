"""Ports on 127.0.0.1 for forwards into instances: assigned once, kept for life."""

import secrets
import socket
from collections.abc import Collection

from labctl.errors import HostError

FIRST, LAST = 20000, 32767  # below the range from which Linux takes ports for clients
_TRIES = 2000


def choose_ports(count: int, *, taken: Collection[int]) -> tuple[int, ...]:
    """Choose `count` ports that no instance owns and nothing listens on now.

    At random, so that two stores on one host seldom want the same. Raises HostError when nearly
    all are taken.
    """
    chosen: list[int] = []
    for _ in range(_TRIES):
        number = FIRST + secrets.randbelow(LAST - FIRST + 1)
        if number not in taken and number not in chosen and is_free(number):
            chosen.append(number)
            if len(chosen) == count:
                return tuple(chosen)
    raise HostError(
        f"no {count} free ports between {FIRST} and {LAST} on 127.0.0.1",
        detail=f"{len(taken)} belong to instances of this state directory",
        hint="delete scale sets that are not needed",
    )


def is_free(number: int) -> bool:
    """Could a listener be opened on this port of 127.0.0.1 now?"""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # A connection of an earlier instance may linger; QEMU sets this option too.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            return False
    return True
