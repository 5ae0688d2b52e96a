"""Bounds on what callers may send, and on how often they may be wrong."""

import asyncio
import re
import threading
from collections import OrderedDict
from datetime import datetime, timedelta

from starlette.datastructures import Headers
from starlette.requests import Request

from labctl.arm.errors import ArmError

BODY_SECONDS = 30.0  # for a whole body that is read into memory
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_UPGRADED = re.compile(r"(?!localhost$)(?=.*[A-Za-z])[A-Za-z0-9._-]+")
# Of one address in a window: so many are written down one by one, and so many are told what was
# wrong. The second is far above what tests with wrong tokens come to: clients that are told to
# wait do wait.
REFUSALS_NOTED = 20
REFUSALS_ANSWERED = 1000
REFUSALS_NOTED_OF_ALL = 500  # of all addresses together: with IPv6 one machine has any number
FAULTS_NOTED = 300  # of one token: calls that fail; scripts that go wrong must not fill the store
_WINDOW = timedelta(minutes=1)
_ADDRESSES = 1024


def find_base_url(request: Request, headers: Headers) -> str:
    """What links begin with: the name that the client used. Raises ArmError for an odd one."""
    hosts = headers.getlist("host")
    if not hosts:
        server = request.scope.get("server") or ("localhost", None)
        name = f"[{server[0]}]" if ":" in server[0] else server[0]
        hosts = [name if server[1] is None else f"{name}:{server[1]}"]
    if len(hosts) > 1 or not _HOST.fullmatch(hosts[0]):
        raise ArmError(400, "InvalidHostHeader", "The header Host is not a name with a port.")
    return f"{request.scope['scheme']}://{hosts[0]}"


def wants_strict_transport(base_url: str) -> bool:
    """Shall browsers use only HTTPS for this host, on whatever port?"""
    # Not for localhost, where other programs serve, too; addresses are ignored by browsers anyway.
    scheme, _, host = base_url.partition("://")
    return scheme == "https" and _UPGRADED.fullmatch(host.partition(":")[0]) is not None


async def read_body(request: Request, limit: int) -> bytes:
    """A whole body. Raises ArmError when it is too large, or does not end."""
    announced = request.headers.get("content-length", "0")
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > limit:
        raise _too_large(limit)
    content = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                content += chunk
                if len(content) > limit:
                    raise _too_large(limit)
    except TimeoutError as error:
        raise ArmError(
            408,
            "RequestTimeout",
            f"The request's body did not end within {BODY_SECONDS:.0f} seconds.",
            headers={"Connection": "close"},
        ) from error
    return bytes(content)


def _too_large(limit: int) -> ArmError:
    return ArmError(
        413,
        "RequestContentTooLarge",
        f"The request's body has more than {limit} bytes.",
        headers={"Connection": "close"},
    )


class FailedLogins:
    """How often each address, or each token, was refused lately.

    Secrets of 32 random bytes need no protection from guessing. This is for the store, in which
    each refusal is written down, and for scripts with a wrong token that ask for ever. Whoever has
    a good token is let in from the same address all the same.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: OrderedDict[str, tuple[datetime, int]] = OrderedDict()

    def note(self, address: str, now: datetime) -> int:
        """Count a refusal; the value is how many there were in this window."""
        with self._lock:
            since, count = self._counts.pop(address, (now, 0))
            if not timedelta(0) <= now - since < _WINDOW:
                since, count = now, 0
            self._counts[address] = (since, count + 1)
            while len(self._counts) > _ADDRESSES:
                self._counts.popitem(last=False)
        return count + 1


def refuse_often() -> ArmError:
    """429: wrong too often."""
    return ArmError(
        429,
        "TooManyRequests",
        f"More than {REFUSALS_ANSWERED} requests without a good token came from this address in a "
        "minute; wait for a minute, or use a good one.",
        headers={"Retry-After": str(int(_WINDOW.total_seconds()))},
    )
