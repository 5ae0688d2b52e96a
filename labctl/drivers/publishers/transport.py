"""The one door to publishers' servers: https, deadlines, redirections that are looked at."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit

from labctl.drivers.publishers.addresses import Mirror, is_allowed, is_loopback, locate, variable_of
from labctl.drivers.publishers.failure import MissingError, PublisherError, UnreachableError
from labctl.model.publisher import Publisher

if TYPE_CHECKING:
    import requests

_TIMEOUT: Final = (10.0, 30.0)  # seconds: to connect, and between two pieces of an answer
_REDIRECTIONS = 5
_AGENT = "labctl (image publishers)"


class Transport:
    """Asks one publisher, or the mirror that the user set for it."""

    def __init__(self, publisher: Publisher, mirror: Mirror | None) -> None:
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3 import Retry

        self.publisher = publisher
        self.mirror = mirror
        self._is_hung_up = False
        self._answer: requests.Response | None = None  # whose body may be on its way
        self._session = requests.Session()
        # Once more: a kept connection may have been closed by the server in this moment.
        once = Retry(total=1, redirect=0, status=0, other=0, raise_on_redirect=False)
        self._session.mount("https://", HTTPAdapter(max_retries=once))
        self._session.mount("http://", HTTPAdapter(max_retries=once))
        if mirror is not None and is_loopback(urlsplit(mirror.url).hostname):
            self._session.trust_env = False  # a proxy does not know this host's own ports
        self._session.headers["User-Agent"] = _AGENT
        # Bytes must be those that were hashed by the publisher.
        self._session.headers["Accept-Encoding"] = "identity"

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    @contextmanager
    def asking(
        self, url: str, headers: Mapping[str, str] | None = None
    ) -> Iterator["requests.Response"]:
        """Ask for one of the publisher's addresses; the body is not read yet.

        Raises UnreachableError when nobody answers or the server has trouble, MissingError for 404
        and 410, PublisherError for any other refusal. 200, 206, 304 and 416 are the caller's.
        """
        response = self._follow(locate(self.publisher, self.mirror, url), headers or {})
        self._answer = response
        try:
            if self._is_hung_up:
                raise self.unreachable(url, InterruptedError("hung up"))
            self._check(response, url)
            yield response
        finally:
            self._answer = None
            response.close()

    def hang_up(self) -> None:
        """From another thread: cut what is being received, and ask nothing more."""
        self._is_hung_up = True
        answer = self._answer
        if answer is not None:
            # It may have ended by itself in this moment.
            with suppress(OSError, RuntimeError, ValueError):
                answer.raw.shutdown()

    def unreachable(self, url: str, error: Exception) -> UnreachableError:
        """Say that the connection failed."""
        return UnreachableError(
            f"publisher {self.publisher.name!r} does not answer",
            detail=f"{url}: {_root_of(error)}",
            hint=f"try again later, or set a mirror: {variable_of(self.publisher.name)}=https://...",
        )

    def _follow(self, place: str, headers: Mapping[str, str]) -> "requests.Response":
        import requests

        for _ in range(_REDIRECTIONS + 1):
            if self._is_hung_up:
                raise self.unreachable(place, InterruptedError("hung up"))
            if not is_allowed(place, self.mirror):
                raise PublisherError(
                    f"publisher {self.publisher.name!r} redirects to {place!r}",
                    detail="only https is followed",
                    hint=f"set a mirror: {variable_of(self.publisher.name)}=https://...",
                )
            try:
                response = self._session.get(
                    place, headers=headers, stream=True, timeout=_TIMEOUT, allow_redirects=False
                )
            except requests.RequestException as error:
                raise self.unreachable(place, error) from error
            if not response.is_redirect:
                return response
            response.close()
            place = urljoin(place, response.headers["Location"])
        raise PublisherError(
            f"publisher {self.publisher.name!r} redirects again and again",
            detail=f"at last to {place}",
        )

    def _check(self, response: "requests.Response", url: str) -> None:
        status = response.status_code
        if status in {
            HTTPStatus.OK,
            HTTPStatus.PARTIAL_CONTENT,
            HTTPStatus.NOT_MODIFIED,
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
        }:
            return
        told = f"{response.url}: HTTP {status} {response.reason or ''}".rstrip()
        if status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
            raise MissingError(
                f"publisher {self.publisher.name!r} does not have {url.rsplit('/', 1)[-1]!r}",
                detail=told,
                hint="list what there is: labctl image versions --refresh",
            )
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
            raise UnreachableError(
                f"publisher {self.publisher.name!r} has trouble",
                detail=told,
                hint=f"try again later, or set a mirror: "
                f"{variable_of(self.publisher.name)}=https://...",
            )
        raise PublisherError(f"publisher {self.publisher.name!r} refuses", detail=told)


def _root_of(error: Exception) -> str:
    """The innermost cause: `[Errno 111] Connection refused` says it best."""
    cause: BaseException = error
    seen = set()
    while id(cause) not in seen:
        seen.add(id(cause))
        inner = getattr(cause, "reason", None) or cause.__cause__ or cause.__context__
        if isinstance(inner, BaseException):
            cause = inner
        elif cause.args and isinstance(cause.args[0], BaseException):
            cause = cause.args[0]
    return str(cause).split(": ", 1)[-1] or type(cause).__name__
