"""What writing galleries, images and versions has in common: bodies merged and checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from labctl.api.call import Call
from labctl.arm.errors import ArmError, conflict, not_supported
from labctl.arm.gallery_body import GalleryBody, ImageBody, VersionBody, merge_json, read_body
from labctl.arm.tracked import merge_tags, read_location

Json = Any  # what json.loads gives

_Body = TypeVar("_Body", GalleryBody, ImageBody, VersionBody)
_PARTS = ("location", "tags", "properties")
_TOLD = {  # of properties: told by answers, never taken from a body
    "provisioningState",
    "sharingStatus",
    "replicationStatus",
    "validationsProfile",
    "imageMetadataProfiles",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted(Generic[_Body]):
    """What a resource is to be: checked, and as it is kept."""

    body: _Body
    document: dict[str, Json]  # location, tags, properties


def read_wanted(
    call: Call,
    kind: type[_Body],
    present: Mapping[str, Json] | None,
    *,
    may_move: bool = False,
) -> Wanted[_Body]:
    """Merge what was sent over the present rendering; None: there is none yet.

    `may_move`: nobody has told its location so far. Raises ArmError.
    """
    sent = call.read_document()
    base = {part: present[part] for part in _PARTS if present and part in present}
    merged = merge_json(base, sent)
    if "tags" in sent:
        merged["tags"] = sent["tags"]
    body = read_body(kind, merged)
    if isinstance(body.identity, dict) and body.identity.get("type") not in {None, "None"}:
        raise not_supported("A lab has no managed identities.", target="identity")
    location = read_location(merged.get("location"))
    if present is not None and not may_move and location != present["location"]:
        raise conflict(
            f"The resource '{present['name']}' already exists in location '{present['location']}'. "
            f"A resource with the same name cannot be created in location '{location}'. Please "
            "select a new resource name.",
            code="InvalidResourceLocation",
            target="location",
        )
    properties = merged.get("properties") or {}
    kept = {key: value for key, value in properties.items() if key not in _TOLD}
    document = merge_tags({"location": location, "properties": kept}, merged.get("tags"))
    return Wanted(body=body, document=document)


def refuse_change(path: str, before: Json, after: Json, *, kind: str) -> None:
    """Raises ArmError (PropertyChangeNotAllowed) if the two are not the same."""
    if before == after:
        return
    raise ArmError(
        409,
        "PropertyChangeNotAllowed",
        f"Changing property '{kind}.{path}' is not allowed.",
        target=path,
    )


def refuse_nested(name: str, nested: list[str]) -> None:
    """Raises ArmError (CannotDeleteResource) while a resource has others in it."""
    if nested:
        raise conflict(
            f"Can not delete resource '{name}' before nested resources are deleted: "
            f"{', '.join(nested[:20])}.",
            code="CannotDeleteResource",
            target=name,
        )
