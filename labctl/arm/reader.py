"""What the parts of reading a scale set share: the document, what is shown now, the spec so far."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from labctl.arm.durations import parse_iso
from labctl.arm.errors import ArmError, Document, ErrorDetail
from labctl.arm.faults import Faults, show
from labctl.model.health_source import HealthProbe
from labctl.model.spec import ScaleSetSpec


class References(Protocol):
    """Looks up what a document only names. Both raise ArmError for what is not there."""

    def find_image(self, reference: Document, target: str) -> tuple[str, str]:
        """The image's definition, and its version or `latest`."""

    def find_probe(self, identifier: str, target: str) -> HealthProbe:
        """The probe of a load balancer."""


@dataclass(slots=True, kw_only=True)
class Reader:
    """What the parts of reading share."""

    document: Document
    name: str
    current: ScaleSetSpec | None
    rendered: Document
    references: References
    faults: Faults = field(default_factory=Faults)
    spec: Document = field(default_factory=dict)  # in the shape of the YAML
    sources: dict[tuple[str | int, ...], str] = field(default_factory=dict)  # spec: JSON path
    kept: Document = field(default_factory=dict)
    labctl: Document = field(default_factory=dict)  # properties.labctl
    labctl_was: Document = field(default_factory=dict)

    def at(self, path: str) -> object:
        """What the document has at a path; wrong types on the way are noted."""
        return self._walk(self.document, path, self.faults)

    def was(self, path: str) -> object:
        """What the lab shows there now."""
        return self._walk(self.rendered, path, Faults())

    def _walk(self, value: object, path: str, faults: Faults) -> object:
        steps = path.split(".")
        for number, step in enumerate(steps):
            found = faults.mapping(value, ".".join(steps[:number]) or "body")
            value = None if found is None else found.get(step)
        return value

    def put(self, keys: tuple[str, ...], value: object, source: str) -> None:
        """Set a key of the spec, and remember where its value stands; None: it is not said."""
        self.sources[keys] = source
        if value is None:
            return
        place = self.spec
        for key in keys[:-1]:
            inner = place.setdefault(key, {})
            if not isinstance(inner, dict):
                return  # a whole part of the present spec, which stays
            place = inner
        place[keys[-1]] = value

    def keep(self, path: str, value: object) -> None:
        """Keep a value for the next rendering."""
        *above, last = path.split(".")
        place = self.kept
        for step in above:
            inner = place.setdefault(step, {})
            if not isinstance(inner, dict):
                return
            place = inner
        place[last] = value

    def look_up(self, look: Callable[[], object]) -> object:
        """Ask `references`; what it complains of is one more fault."""
        try:
            return look()
        except ArmError as error:
            self.faults.lookups.append(error)
            detail = ErrorDetail(code=error.code, message=error.message, target=error.target)
            self.faults.found.append(detail)
            return None

    def length(self, value: object, target: str) -> timedelta | None:
        """A length of time in ISO 8601."""
        text = self.faults.text(value, target)
        found = None if text is None else parse_iso(text)
        if text is not None and found is None:
            self.faults.note(target, f"must be a length of time such as PT10M, not {show(text)}.")
        return found


def child(parent: Document, key: str) -> Document:
    """The object below `parent`; an empty one where there is none."""
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[object]:
    """The array, or an empty one."""
    return value if isinstance(value, list) else []
