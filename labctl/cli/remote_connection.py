"""One connection to another host's labctl serve: HTTPS with a verified certificate, and a token."""

import http.client
import ipaddress
import json
import os
import ssl
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from labctl.cli.remote_words import Target
from labctl.errors import HostError, InvalidError, LabError, NotFoundError, RefusedError

_SILENCE = 60.0  # seconds; the server says something every ten
_TOKEN_LIMIT = 64 * 1024  # bytes

Json = Any  # what json.loads gives


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """How a server is reached. Its secret is in no message."""

    url: str
    host: str
    port: int
    prefix: str  # of every path
    context: ssl.SSLContext | None  # None: plain, on this host
    secret: str

    @contextmanager
    def ask(
        self, path: str, content: bytes | BinaryIO, headers: Mapping[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        """POST, and hand over the answer. Raises LabError for one that is a refusal."""
        connection = self._connect()
        try:
            try:
                whole = {"Authorization": f"Bearer {self.secret}", **headers}
                connection.request("POST", f"{self.prefix}{path}", content, whole)
                answer = connection.getresponse()
            except (BrokenPipeError, ConnectionResetError) as error:
                # It may have refused before all was sent, and said why.
                try:
                    answer = self._find_early_answer(connection, error)
                except OSError as second:
                    raise self._unreachable(second) from error
            except (OSError, http.client.HTTPException) as error:
                raise self._unreachable(error) from error
            if answer.status >= 300:
                raise self._translate(answer)
            yield answer
        finally:
            connection.close()

    def read_lines(self, answer: http.client.HTTPResponse) -> Iterator[bytes]:
        """The lines of an answer as they come. Raises HostError where they break off."""
        while True:
            try:
                line = answer.readline()
            except (OSError, http.client.HTTPException) as error:
                raise self._unreachable(error) from error
            if not line:
                return
            yield line

    def _connect(self) -> http.client.HTTPConnection:
        if self.context is None:
            return http.client.HTTPConnection(self.host, self.port, timeout=_SILENCE)
        return http.client.HTTPSConnection(
            self.host, self.port, timeout=_SILENCE, context=self.context
        )

    def _find_early_answer(
        self, connection: http.client.HTTPConnection, error: OSError
    ) -> http.client.HTTPResponse:
        if connection.sock is None:
            raise error
        answer = http.client.HTTPResponse(connection.sock, method="POST")
        try:
            answer.begin()
        except (OSError, http.client.HTTPException):
            answer.close()
            raise error from None
        return answer

    def _translate(self, answer: http.client.HTTPResponse) -> LabError:
        try:
            error = json.loads(b"".join(self.read_lines(answer)))["error"]
            code, message = str(error["code"]), str(error["message"])
        except (ValueError, KeyError, TypeError):
            code, message = answer.reason, ""
        kind: type[LabError] = HostError
        hint = ""
        match answer.status:
            case 401:
                kind = RefusedError
                hint = "make a token on the server's host: labctl token create; then --token-file"
            case 403:
                kind = RefusedError
                hint = "use a token with that scope: labctl token create, on the server's host"
            case 404:
                kind = NotFoundError
                hint = "does the URL lead to labctl serve, and is it of this version?"
            case 409 | 429:
                kind = RefusedError
            case status if status < 500:
                kind = InvalidError
        return kind(f"{self.url} refused: {code}", detail=message, hint=hint)

    def _unreachable(self, error: Exception) -> HostError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return HostError(
                f"the certificate of {self.url} is not to be trusted",
                detail=error.verify_message,
                hint="give the CA that labctl serve --init has made: --ca FILE",
            )
        if isinstance(error, TimeoutError):
            return HostError(
                f"{self.url} does not answer",
                detail=f"nothing came for {_SILENCE:.0f} s",
                hint="is labctl serve running there? run the same command again to go on",
            )
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if self.context is None and isinstance(error, ConnectionResetError | BrokenPipeError):
            return HostError(
                f"{self.url} gave no answer",
                detail=reason,
                hint=f"labctl serve speaks https only: --server https{self.url[4:]}",
            )
        return HostError(
            f"no connection with {self.url}",
            detail=reason or type(error).__name__,
            hint="is labctl serve running there, and is the address right?",
        )


def open_remote(target: Target) -> Remote:
    """Check how a server is named. Raises InvalidError, RefusedError."""
    try:
        parts = urlsplit(target.server)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidError(f"--server {target.server!r} is no URL: {error}") from error
    if parts.scheme not in {"https", "http"} or not host:
        raise InvalidError(
            f"--server {target.server!r} is no URL of a server",
            hint="for example: --server https://lab.example:8443",
        )
    if parts.query or parts.fragment or parts.username is not None:
        raise InvalidError(
            "--server takes no user, query or fragment",
            hint="the token comes from a file: --token-file FILE",
        )
    is_plain = parts.scheme == "http"
    if is_plain and not _is_loopback(host):
        raise InvalidError(
            f"--server {target.server!r} would send the token in the clear",
            hint="use https; plain http is only for this host itself",
        )
    return Remote(
        url=target.server.rstrip("/"),
        host=host,
        port=port or (80 if is_plain else 443),
        prefix=parts.path.rstrip("/"),
        context=None if is_plain else _make_context(target.ca),
        secret=_load_secret(target),
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _make_context(authority: str | None) -> ssl.SSLContext:
    try:
        if authority is None:
            return ssl.create_default_context()  # those that this host trusts
        return ssl.create_default_context(cafile=Path(authority).expanduser())
    except (OSError, RuntimeError) as error:
        detail = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidError(
            f"--ca {authority!r} cannot be used",
            detail=detail or str(error),
            hint="name the PEM file with the certificate of the CA",
        ) from error


def _load_secret(target: Target) -> str:
    if target.token_file is None:
        if target.token is None:
            raise RefusedError(
                "there is no token to show to the server",
                hint="give --token-file FILE, or set LABCTL_TOKEN_FILE or LABCTL_TOKEN",
            )
        return _check_secret(target.token, "LABCTL_TOKEN")
    name = f"token file {target.token_file!r}"
    try:
        path = Path(target.token_file).expanduser()
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise InvalidError(f"{name} is no regular file")
            if mode & 0o077:
                raise InvalidError(
                    f"{name} may be used by others (mode {stat.S_IMODE(mode):04o})",
                    hint=f"run: chmod 600 {path}",
                )
            content = stream.read(_TOKEN_LIMIT)
        return _check_secret(content.decode(), name)
    except UnicodeDecodeError as error:
        raise InvalidError(f"{name} holds no token") from error
    except (OSError, RuntimeError, ValueError) as error:
        detail = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidError(f"{name} cannot be read", detail=detail or "") from error


def _check_secret(text: str, name: str) -> str:
    secret = text.strip()
    if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise InvalidError(f"{name} holds no token", hint="it must be one line, the token alone")
    return secret
