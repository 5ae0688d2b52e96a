"""The lab's images as a marketplace shows them: publishers, offers, SKUs, versions.

Nobody is asked over the network: what is listed is what the gallery has.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from labctl.api.call import Answer, Call
from labctl.api.desk import Desk
from labctl.api.galleries import find_place, read_version_name
from labctl.api.platform_names import PlatformName, load_platform_names
from labctl.api.route import Route
from labctl.arm.errors import ArmError, invalid
from labctl.arm.tracked import read_location
from labctl.model.image import ImageVersion, OsType
from labctl.model.publisher import Architecture
from labctl.store.gallery import find_version, load_versions

Json = Any  # what json.loads gives

_ARCHITECTURES = {Architecture.X86_64: "x64", Architecture.AARCH64: "Arm64"}


def list_publishers(desk: Desk, call: Call) -> Answer:
    """`labctl`, and who published what was pulled."""
    return _list(desk, call, 0)


def list_offers(desk: Desk, call: Call) -> Answer:
    """Of a publisher; those of labctl are the image definitions."""
    return _list(desk, call, 1)


def list_skus(desk: Desk, call: Call) -> Answer:
    """Of an offer."""
    return _list(desk, call, 2)


def list_versions(desk: Desk, call: Call) -> Answer:
    """The versions that `latest` may mean in a region, by number."""
    region = read_location(call.parameters["location"])
    newest_first = _read_order(call)
    top = _read_top(call)
    is_whole = call.query.get("$expand", "").lower().startswith("properties")
    with desk.database.read() as connection:
        name = _get_name(connection, call)
        offered = [
            each
            for each in load_versions(connection, name.definition)
            if each.find_reason_against(region, call.now) is None
        ]
        offered.sort(key=lambda image: image.version, reverse=newest_first)
        body = [
            _render(connection, desk, call, name, image, is_whole=is_whole)
            for image in offered[:top]
        ]
    return Answer(body=body)


def get_version(desk: Desk, call: Call) -> Answer:
    """One version that may be used in a region, also an old one that `latest` never means."""
    region = read_location(call.parameters["location"])
    number = read_version_name(call.parameters["version"])
    with desk.database.read() as connection:
        name = _get_name(connection, call)
        image = find_version(connection, name.definition, number)
        if image is None or image.find_available_at(region) is None:
            raise _not_found(f"version '{number}' in {region}")
        return Answer(body=_render(connection, desk, call, name, image, is_whole=True))


def _list(desk: Desk, call: Call, level: int) -> Answer:
    """The names at one level, below those that the path has."""
    location = read_location(call.parameters["location"])
    given = tuple(call.parameters[each].lower() for each in ("publisher", "offer")[:level])
    with desk.database.read() as connection:
        names = load_platform_names(connection)
    found = {
        key[level]: (name.publisher, name.offer, name.sku)[: level + 1]
        for key, name in sorted(names.items(), reverse=True)
        if key[:level] == given
    }
    if given and not found:
        raise _not_found(f"'{'/'.join(given)[:200]}'")
    return Answer(
        body=[
            {
                "id": _make_id(desk, location, found[key]),
                "name": found[key][-1],
                "location": location,
            }
            for key in sorted(found)
        ]
    )


def _get_name(connection: Connection, call: Call) -> PlatformName:
    given = [call.parameters[each] for each in ("publisher", "offer", "sku")]
    key = (given[0].lower(), given[1].lower(), given[2].lower())
    found = load_platform_names(connection).get(key)
    if found is None:
        raise _not_found(f"'{':'.join(given)[:200]}'")
    return found


def _render(
    connection: Connection,
    desk: Desk,
    call: Call,
    name: PlatformName,
    image: ImageVersion,
    *,
    is_whole: bool,
) -> dict[str, Json]:
    location = read_location(call.parameters["location"])
    words = (name.publisher, name.offer, name.sku, str(image.version))
    document: dict[str, Json] = {
        "id": _make_id(desk, location, words),
        "name": str(image.version),
        "location": location,
    }
    if not is_whole:
        return document
    place = find_place(connection, desk, name.definition)
    kept: dict[str, Json] = {}
    if place is not None and place.row is not None:
        kept = place.row.document.get("properties") or {}
    is_windows = place is not None and place.definition.os_type is OsType.WINDOWS
    architecture = "x64" if name.architecture is None else _ARCHITECTURES[name.architecture]
    return document | {
        "properties": {
            "osDiskImage": {
                "operatingSystem": "Windows" if is_windows else "Linux",
                "sizeInGb": -(-image.virtual_size // 2**30),
            },
            "dataDiskImages": [],
            # Every image of a lab may be rolled out by labctl.
            "automaticOSUpgradeProperties": {"automaticOSUpgradeSupported": True},
            "hyperVGeneration": kept.get("hyperVGeneration", "V1"),
            "architecture": kept.get("architecture", architecture),
            "features": kept.get("features", []),
            "imageDeprecationStatus": _render_deprecation(image, call.now),
        }
    }


def _render_deprecation(image: ImageVersion, now: datetime) -> dict[str, Json]:
    if image.end_of_life is None:
        return {"imageState": "Active"}
    state = "Deprecated" if image.end_of_life <= now else "ScheduledForDeprecation"
    return {"imageState": state, "scheduledDeprecationTime": image.end_of_life.isoformat()}


def _make_id(desk: Desk, location: str, words: Iterable[str]) -> str:
    kinds = ("Publishers", "ArtifactTypes/VMImage/Offers", "Skus", "Versions")
    path = "".join(f"/{kind}/{word}" for kind, word in zip(kinds, words, strict=False))
    provider = f"/Subscriptions/{desk.subscription_id}/Providers/Microsoft.Compute"
    return f"{provider}/Locations/{location}{path}"


def _read_order(call: Call) -> bool:
    """Whether the newest comes first."""
    words = call.query.get("$orderby", "name asc").lower().split()
    if words not in (["name"], ["name", "asc"], ["name", "desc"]):
        raise invalid(
            "$orderby must be 'name', 'name asc' or 'name desc'; names are compared as numbers.",
            target="$orderby",
        )
    return words[-1] == "desc"


def _read_top(call: Call) -> int | None:
    text = call.query.get("$top")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise invalid(f"$top must be a whole number, not '{text[:40]}'.", target="$top")
    return int(text)


def _not_found(what: str) -> ArmError:
    return ArmError(404, "NotFound", f"Artifact: VMImage was not found: {what}.")


_PUBLISHERS = (
    "/subscriptions/{subscription}/providers/Microsoft.Compute/locations/{location}/publishers"
)
_OFFERS = f"{_PUBLISHERS}/{{publisher}}/artifacttypes/vmimage/offers"
_SKUS = f"{_OFFERS}/{{offer}}/skus"
_VERSIONS = f"{_SKUS}/{{sku}}/versions"
_ENTRY = {"type": "object", "required": ["id", "name", "location"]}
_ARRAY = {"type": "array", "items": _ENTRY}

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path=_PUBLISHERS,
        handler=list_publishers,
        summary="List the publishers of this lab's images",
        response=_ARRAY,
    ),
    Route(
        method="GET",
        path=_OFFERS,
        handler=list_offers,
        summary="List the offers of a publisher",
        response=_ARRAY,
    ),
    Route(
        method="GET",
        path=_SKUS,
        handler=list_skus,
        summary="List the SKUs of an offer",
        response=_ARRAY,
    ),
    Route(
        method="GET",
        path=_VERSIONS,
        handler=list_versions,
        summary="List the versions that `latest` may mean",
        query={
            "$top": "how many at most",
            "$orderby": "name asc (the default) or name desc; numbers, not text",
            "$expand": "properties",
        },
        response=_ARRAY,
    ),
    Route(
        method="GET",
        path=f"{_VERSIONS}/{{version}}",
        handler=get_version,
        summary="Show a version with its properties",
        response=_ENTRY,
    ),
)
