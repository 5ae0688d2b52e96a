"""Network resources: read from clients, kept as they were written, shown with what Azure adds."""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID, uuid5

from labctl.arm.errors import ArmError, invalid
from labctl.arm.ids import ResourceId
from labctl.arm.network_kinds import Kind, Part
from labctl.arm.probe import check_probe
from labctl.arm.tracked import merge_tags, read_location

Json = Any  # what json.loads gives
Document = dict[str, Json]

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,78}[A-Za-z0-9_])?", re.ASCII)
_KNOWN = ("extendedlocation", "identity", "sku", "zones")
_READ_ONLY = frozenset({"etag", "id", "name", "type"})
_GUIDS = UUID("6c0c0d1e-5a3b-4d7e-9a44-2f6d1b1f5c10")
_MANY = 1000  # members of one list


def check_name(name: str, *, target: str) -> None:
    """Raises ArmError (InvalidResourceName)."""
    if not _NAME.fullmatch(name):
        raise invalid(
            f"Resource name {name[:90]!r} is invalid. The name can be up to 80 characters long. It "
            "must begin with a letter or digit, end with one or with '_', and may contain "
            "'.', '-' and '_' in between.",
            code="InvalidResourceName",
            target=target,
        )


def read_resource(kind: Kind, body: Mapping[str, Json]) -> Document:
    """What is kept of a resource that a client wrote. Raises ArmError."""
    document: Document = {"location": read_location(body.get("location"))}
    document = merge_tags(document, body.get("tags"))
    for key, value in body.items():
        if key.lower() in _KNOWN and value is not None:
            document[key] = value
    _check_sku(document.get("sku"))
    _check_zones(document.get("zones"))
    if "identity" in document:
        raise invalid(
            "'identity' has no counterpart in a lab; remove it.",
            code="NotSupportedInLab",
            target="identity",
        )
    properties = _read_properties(body.get("properties"), kind.parts, "properties")
    document["properties"] = properties
    if kind.name == "virtualNetworks":
        space = properties.get("addressSpace")
        prefixes = space.get("addressPrefixes") if isinstance(space, dict) else None
        _check_prefixes(prefixes, "properties.addressSpace.addressPrefixes")
    return document


def read_part(part: Part, name: str, body: Mapping[str, Json], *, target: str) -> Document:
    """What is kept of a member of a list. Raises ArmError."""
    check_name(name, target=f"{target}.name")
    rest = {key: value for key, value in body.items() if key not in _READ_ONLY}
    properties = _read_properties(body.get("properties"), part.parts, f"{target}.properties")
    if part.key == "probes":
        check_probe(properties, target=name)
    if part.key == "subnets":
        if "addressPrefix" in properties:
            _check_prefixes([properties["addressPrefix"]], f"{target}.properties.addressPrefix")
        prefixes = properties.get("addressPrefixes", [])
        _check_prefixes(prefixes, f"{target}.properties.addressPrefixes")
        if "addressPrefix" not in properties and not prefixes:
            raise invalid(
                f"The subnet '{name}' needs 'addressPrefix', such as 10.0.0.0/24.",
                target=f"{target}.properties.addressPrefix",
            )
    return {**rest, "name": name, "properties": properties}


def render_resource(kind: Kind, identifier: ResourceId, document: Document, *, etag: str) -> Json:
    """A resource as clients see it."""
    rest = {key: value for key, value in document.items() if key != "properties"}
    properties = {
        **kind.defaults,
        **_render_parts(identifier, kind.parts, document["properties"], etag),
        "provisioningState": "Succeeded",
        "resourceGuid": str(uuid5(_GUIDS, identifier.key)),
    }
    if kind.name == "publicIPAddresses":
        properties |= _render_domain_name(properties, str(document["location"]))
    for part in kind.parts:
        properties.setdefault(part.key, [])
    return {
        "id": str(identifier),
        "name": identifier.name,
        "type": identifier.type,
        "etag": etag,
        **rest,
        "properties": properties,
    }


def render_part(part: Part, parent: ResourceId, member: Document, *, etag: str) -> Json:
    """A member of a list as clients see it."""
    identifier = parent.child(part.key, str(member["name"]))
    rest = {key: value for key, value in member.items() if key not in _READ_ONLY | {"properties"}}
    return {
        "id": str(identifier),
        "name": identifier.name,
        "type": identifier.type,
        "etag": etag,
        **rest,
        "properties": {
            **_render_parts(identifier, part.parts, member["properties"], etag),
            "provisioningState": "Succeeded",
        },
    }


def load_members(document: Mapping[str, Json], key: str) -> list[Document]:
    """The members of a list, as they are kept."""
    properties = document.get("properties")
    found = properties.get(key) if isinstance(properties, dict) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def find_member(document: Mapping[str, Json], key: str, name: str) -> Document | None:
    """The member of a list with this name, in any case."""
    for member in load_members(document, key):
        if str(member.get("name", "")).lower() == name.lower():
            return member
    return None


def find_references(value: Json, target: str = "") -> Iterator[tuple[str, str]]:
    """Every `{"id": "..."}` in a document with the path to it, deepest last."""
    if isinstance(value, list):
        for place, each in enumerate(value):
            yield from find_references(each, f"{target}[{place}]")
    elif isinstance(value, dict):
        for key, each in value.items():
            if key == "id" and isinstance(each, str):
                yield target, each
            else:
                yield from find_references(each, f"{target}.{key}" if target else key)


def _read_properties(value: Json, parts: tuple[Part, ...], target: str) -> Document:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _refuse(target, "must be an object", value)
    properties = {
        key: each
        for key, each in value.items()
        if key not in {"provisioningState", "resourceGuid"} and each is not None
    }
    for part in parts:
        # Clients may spell a list's key otherwise than Azure does; it is one and the same list.
        spelled = [key for key in properties if key.lower() == part.key.lower()]
        if len(spelled) > 1:
            raise _refuse(f"{target}.{part.key}", "must be given once", spelled)
        if spelled:
            members = properties.pop(spelled[0])
            properties[part.key] = _read_members(part, members, f"{target}.{part.key}")
    return properties


def _read_members(part: Part, value: Json, target: str) -> list[Document]:
    if not isinstance(value, list) or len(value) > _MANY:
        raise _refuse(target, f"must be a list of at most {_MANY} members", value)
    found: list[Document] = []
    names: set[str] = set()
    for place, member in enumerate(value):
        at = f"{target}[{place}]"
        name = member.get("name") if isinstance(member, dict) else None
        if not isinstance(name, str):
            raise _refuse(at, "must be an object with a 'name'", member)
        if name.lower() in names:
            raise _refuse(f"{at}.name", "must not be repeated", name)
        names.add(name.lower())
        found.append(read_part(part, name, member, target=at))
    return found


def _render_parts(
    parent: ResourceId, parts: tuple[Part, ...], properties: Document, etag: str
) -> Document:
    shown = dict(properties)
    for part in parts:
        if part.key in properties:
            shown[part.key] = [
                render_part(part, parent, member, etag=etag) for member in properties[part.key]
            ]
    return shown


def _render_domain_name(properties: Document, location: str) -> Document:
    """A name for outputs of templates; `.invalid` says that nobody can resolve it."""
    settings = properties.get("dnsSettings")
    label = settings.get("domainNameLabel") if isinstance(settings, dict) else None
    if not isinstance(settings, dict) or not isinstance(label, str):
        return {}
    return {"dnsSettings": {**settings, "fqdn": f"{label}.{location}.lab.invalid"}}


def _check_sku(sku: Json) -> None:
    if sku is not None and not (isinstance(sku, dict) and isinstance(sku.get("name"), str)):
        raise _refuse("sku", "must be an object with a 'name' such as Standard", sku)


def _check_zones(zones: Json) -> None:
    if zones is not None and not (
        isinstance(zones, list) and all(isinstance(each, str) for each in zones)
    ):
        raise _refuse("zones", 'must be a list such as ["1"]', zones)


def _check_prefixes(prefixes: Json, target: str) -> None:
    if not isinstance(prefixes, list) or len(prefixes) > _MANY:
        raise _refuse(target, "must be a list such as [10.0.0.0/16]", prefixes)
    for prefix in prefixes:
        try:
            # As text: a number would be an address, too.
            ipaddress.ip_network(str(prefix), strict=False)
        except ValueError as error:
            raise invalid(
                f"'{target}' has {repr(prefix)[:60]}, which is no address prefix such as "
                "10.0.0.0/16.",
                code="InvalidAddressPrefixFormat",
                target=target,
            ) from error


def _refuse(target: str, rule: str, value: Json) -> ArmError:
    return invalid(f"'{target}' {rule}, not {repr(value)[:60]}.", target=target)
