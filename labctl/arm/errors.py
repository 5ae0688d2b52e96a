"""Errors in the shape of Azure Resource Manager."""

from collections.abc import Mapping
from dataclasses import dataclass

from typing_extensions import override

Document = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorDetail:
    """One of several things that were wrong, or one instance that did not come along."""

    code: str
    message: str
    target: str = ""

    @property
    def document(self) -> Document:
        """As it goes over the wire."""
        found: Document = {"code": self.code, "message": self.message}
        return found | ({"target": self.target} if self.target else {})


class ArmError(Exception):
    """A refusal that a client understands: HTTP status, code, message, and what it concerns.

    The codes are those that Azure's clients know, wherever there is one for it.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        target: str = "",
        details: tuple[ErrorDetail, ...] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.target = target
        self.details = details
        self.headers = dict(headers or {})

    @override
    def __str__(self) -> str:
        """For logs and tests."""
        return f"{self.status} {self.code}: {self.message}"

    @property
    def document(self) -> Document:
        """The body of the answer, and the `error` of an operation that failed."""
        found: Document = {"code": self.code, "message": self.message}
        if self.target:
            found["target"] = self.target
        if self.details:
            found["details"] = [detail.document for detail in self.details]
        return found


def invalid(message: str, *, target: str = "", code: str = "InvalidParameter") -> ArmError:
    """400: a value that cannot be taken."""
    return ArmError(400, code, message, target=target)


def not_supported(message: str, *, target: str = "") -> ArmError:
    """400: what Azure has and a lab has not, where to accept it would be silently wrong."""
    return ArmError(400, "NotSupportedInLab", message, target=target)


def conflict(message: str, *, code: str = "OperationNotAllowed", target: str = "") -> ArmError:
    """409: right in itself, but not now."""
    return ArmError(409, code, message, target=target)


def resource_not_found(identifier: str) -> ArmError:
    """404: no such resource, in the words that clients look for."""
    return ArmError(
        404, "ResourceNotFound", f"The resource '{identifier}' was not found.", target=identifier
    )
