"""What an application tells an upgrade about its instance: its phase, and whether to skip it."""

import json
from dataclasses import dataclass
from typing import Any

_LARGEST = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeWish:
    """`rollingUpgrade` of custom metrics."""

    phase: int | None = None  # phases go in numeric order; None: the last one
    skips: bool = False  # leave this instance out


def read_upgrade_wish(custom_metrics: str) -> UpgradeWish:
    """Read custom metrics leniently: keys in any case, numbers and booleans as text or not.

    What cannot be understood is as if it were not there: an application cannot stop an upgrade by
    telling nonsense.
    """
    # {"rollingUpgrade": {"PhaseOrderingNumber": 0, "SkipUpgrade": "false"}}: phase 0, not skipped.
    found = _decode(_lower(_decode(custom_metrics)).get("rollingupgrade"))
    wish = _lower(found)
    return UpgradeWish(
        phase=_read_number(wish.get("phaseorderingnumber")),
        skips=_read_flag(wish.get("skipupgrade")),
    )


def _decode(value: object) -> object:
    """JSON inside text; both layers of a document that was encoded twice."""
    for _ in range(2):
        if not isinstance(value, str):
            break
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value


def _lower(value: object) -> dict[str, Any]:
    return {key.lower(): each for key, each in value.items()} if isinstance(value, dict) else {}


def _read_number(value: object) -> int | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Infinity and nan are no numbers of phases either.
    return int(value) if -_LARGEST <= value <= _LARGEST and value == int(value) else None


def _read_flag(value: object) -> bool:
    return value is True or str(value).strip().lower() in {"true", "1"}
