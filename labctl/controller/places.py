"""Refuses a spec that would give instances other places than they have."""

from labctl.errors import RefusedError
from labctl.model.spec import ScaleSetSpec
from labctl.planner.impact import PLACE_FIELDS


def refuse_other_places(old: ScaleSetSpec, new: ScaleSetSpec) -> None:
    """Zones and domains follow from the ordinal, so that other ones would move instances about."""
    for field in PLACE_FIELDS:
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            key = ScaleSetSpec.model_fields[field].alias
            raise RefusedError(
                f"{key} of scale set {new.name!r} cannot change",
                detail=f"it is {_write(before)}, the spec says {_write(after)}",
                hint="apply the spec under another name",
            )


def _write(value: object) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
