"""What a deployment would change, as the difference of two documents."""

from collections.abc import Mapping

from labctl.arm.template_fault import Json
from labctl.arm.template_values import are_same

# Made by the lab, and different at each look or after each write: no change that anybody asked for.
_OURS = frozenset(
    {"etag", "provisioningstate", "timecreated", "timechanged", "resourceguid", "uniqueid"}
)


def compare(before: Json, after: Json, path: str = "") -> list[dict[str, Json]]:
    """The changes, in the words of Azure's what-if."""
    if isinstance(before, dict) and isinstance(after, dict):
        return _compare_objects(before, after, path)
    if isinstance(before, list) and isinstance(after, list):
        children = _compare_lists(before, after)
        if not children:
            return []
        return [{"path": path, "propertyChangeType": "Array", "children": children}]
    if are_same(before, after):
        return []
    return [_tell(path, "Modify", before=before, after=after)]


def leave_ours_out(document: Json) -> Json:
    """A resource without what the lab says of it at the moment."""
    if isinstance(document, list):
        return [leave_ours_out(each) for each in document]
    if not isinstance(document, dict):
        return document
    return {
        key: leave_ours_out(value) for key, value in document.items() if key.lower() not in _OURS
    }


def _compare_objects(
    before: Mapping[str, Json], after: Mapping[str, Json], path: str
) -> list[dict[str, Json]]:
    found: list[dict[str, Json]] = []
    for key in [*before, *(key for key in after if key not in before)]:
        if key.lower() in _OURS:
            continue
        here = f"{path}.{key}" if path else key
        if key not in after:
            found.append(_tell(here, "Delete", before=before[key]))
        elif key not in before:
            found.append(_tell(here, "Create", after=after[key]))
        else:
            found += compare(before[key], after[key], here)
    return found


def _compare_lists(before: list[Json], after: list[Json]) -> list[dict[str, Json]]:
    found: list[dict[str, Json]] = []
    for place in range(max(len(before), len(after))):
        here = str(place)
        if place >= len(after):
            found.append(_tell(here, "Delete", before=before[place]))
        elif place >= len(before):
            found.append(_tell(here, "Create", after=after[place]))
        elif isinstance(before[place], dict) and isinstance(after[place], dict):
            children = _compare_objects(before[place], after[place], "")
            if children:
                found.append({"path": here, "propertyChangeType": "Modify", "children": children})
        else:
            found += compare(before[place], after[place], here)
    return found


def _tell(path: str, kind: str, **values: Json) -> dict[str, Json]:
    return {"path": path, "propertyChangeType": kind, **values}
