"""Statuses as Azure writes them: a code, a level, a few words."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from labctl.arm.errors import Document


class ProvisioningState(StrEnum):
    """How far a resource is; clients wait for one of the last three."""

    CREATING = "Creating"
    UPDATING = "Updating"
    DELETING = "Deleting"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELED = "Canceled"


class Level(StrEnum):
    """How bad it is."""

    INFO = "Info"
    WARNING = "Warning"
    ERROR = "Error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One status of an instance view."""

    code: str  # "PowerState/running"
    text: str  # "VM running"
    level: Level = Level.INFO
    message: str = ""
    at: datetime | None = None

    @property
    def document(self) -> Document:
        """As it goes over the wire."""
        found: Document = {
            "code": self.code,
            "level": self.level.value,
            "displayStatus": self.text,
        }
        if self.message:
            found["message"] = self.message
        if self.at is not None:
            found["time"] = format_moment(self.at)
        return found


def make_provisioning_status(
    state: ProvisioningState, *, message: str = "", at: datetime | None = None
) -> Status:
    """The first status of everything that is provisioned."""
    match state:
        case ProvisioningState.SUCCEEDED:
            code, text, level = "succeeded", "Provisioning succeeded", Level.INFO
        case ProvisioningState.FAILED:
            code, text, level = "failed", "Provisioning failed", Level.ERROR
        case _:
            code, text, level = state.value.lower(), state.value, Level.INFO
    return Status(code=f"ProvisioningState/{code}", text=text, level=level, message=message, at=at)


def summarize(codes: Iterable[str]) -> list[Document]:
    """How many there are of each code, in the order of their first."""
    counts: dict[str, int] = {}
    for code in codes:
        counts[code] = counts.get(code, 0) + 1
    return [{"code": code, "count": count} for code, count in counts.items()]


def format_moment(moment: datetime) -> str:
    """ISO 8601 in UTC, with the Z that clients expect."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
