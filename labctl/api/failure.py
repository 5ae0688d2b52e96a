"""What a failure of ours is to a client of Azure."""

from labctl.arm.errors import ArmError
from labctl.errors import (
    HostError,
    InvalidError,
    LabError,
    NotFoundError,
    RefusedError,
    TimedOutError,
)

_STATUSES: dict[type[LabError], tuple[int, str]] = {
    InvalidError: (400, "InvalidParameter"),
    NotFoundError: (404, "ResourceNotFound"),
    RefusedError: (409, "OperationNotAllowed"),
    TimedOutError: (504, "GatewayTimeout"),
    HostError: (503, "ServiceUnavailable"),
}


def translate(error: LabError) -> ArmError:
    """The same in ARM's shape: brief, detail and hint are one message."""
    kinds = (_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES)
    status, code = next(kinds, (409, "OperationNotAllowed"))
    detail = "; ".join(error.detail.splitlines())
    hint = error.hint[:1].upper() + error.hint[1:]
    message = ". ".join(part for part in (error.brief, detail, hint) if part)
    return ArmError(status, code, message)
