"""Which resource names which other one, so that nothing goes that is still needed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from labctl.api.probes import SCALE_SET_TYPE, refuse_reference
from labctl.arm.errors import ArmError, invalid
from labctl.arm.ids import ResourceId, parse_id
from labctl.arm.network import find_references, load_members
from labctl.arm.network_kinds import NETWORK_KINDS, find_kind
from labctl.store.arm_resources import find_resource, load_resources
from labctl.store.scale_sets import find_scale_set

Json = Any  # what json.loads gives

_MANY = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A resource that names others."""

    id: str
    group: str | None  # the key of its resource group
    named: frozenset[str]  # ids in lower case


def load_holders(connection: Connection) -> list[Holder]:
    """Every resource that names others; scale sets that are to go name nothing."""
    found = []
    for resource in load_resources(connection):
        if resource.type.lower() == SCALE_SET_TYPE.lower():
            row = find_scale_set(connection, resource.name.lower())
            if row is None or row.is_deleting:
                continue
        elif find_kind(resource.type) is None:
            continue
        named = frozenset(each.lower() for _, each in find_references(resource.document))
        found.append(Holder(id=resource.id, group=resource.group, named=named))
    return found


def find_holders(holders: list[Holder], identifier: str) -> list[str]:
    """The ids of those that name a resource or a part of it; it may name itself."""
    key = identifier.lower()
    return [
        holder.id
        for holder in holders
        if not f"{key}/".startswith(f"{holder.id.lower()}/")
        and any(each == key or each.startswith(f"{key}/") for each in holder.named)
    ]


def refuse_used(holders: list[Holder], identifier: str, *, code: str) -> None:
    """Raises ArmError (409) when other resources name this one."""
    users = find_holders(holders, identifier)
    if users:
        raise ArmError(
            409,
            code,
            f"{identifier} cannot be deleted because it is in use by {', '.join(users[:10])}"
            f"{' and others' if len(users) > 10 else ''}. Delete or change these first.",
            target=identifier,
        )


def check_references(
    connection: Connection, identifier: ResourceId, document: Mapping[str, Json]
) -> None:
    """Every network resource that a document names must be there, or be part of the document.

    Raises ArmError (InvalidResourceReference, LinkedInvalidPropertyId).
    """
    references = list(find_references(document.get("properties"), "properties"))
    if len(references) > _MANY:  # each is looked up while nobody else can write
        raise invalid(
            f"The resource names {len(references)} others; {_MANY} are the most.",
            target="properties",
        )
    find = _Finder(connection, identifier, document)
    for target, text in references:
        named = parse_id(text, target=target)
        outermost = ResourceId(
            subscription=named.subscription,
            group=named.group,
            namespace=named.namespace,
            parts=named.parts[:1],
        )
        if find_kind(outermost.type) is None:
            continue  # what a lab does not keep, nobody can look for
        there = find.find(outermost)
        key = outermost.key
        for kind, name in named.parts[1:]:
            if there is not None:
                there = find.find_member(key, there, _spell(kind), name)
            key = f"{key}/{kind}/{name}".lower()
        if there is None:
            raise refuse_reference(named, target)


class _Finder:
    """Reads each resource once, however many references lead to it."""

    def __init__(
        self, connection: Connection, identifier: ResourceId, document: Mapping[str, Json]
    ) -> None:
        self._connection = connection
        self._documents: dict[str, Mapping[str, Json] | None] = {identifier.key: document}
        self._members: dict[tuple[str, str], dict[str, Json]] = {}

    def find(self, identifier: ResourceId) -> Mapping[str, Json] | None:
        if identifier.key not in self._documents:
            row = find_resource(self._connection, str(identifier))
            self._documents[identifier.key] = None if row is None else row.document
        return self._documents[identifier.key]

    def find_member(self, key: str, document: Mapping[str, Json], kind: str, name: str) -> Json:
        """The member of a list of the document, which has this key."""
        if (key, kind) not in self._members:
            members = reversed(load_members(document, kind))  # of two, the first counts
            self._members[key, kind] = {str(each.get("name", "")).lower(): each for each in members}
        return self._members[key, kind].get(name.lower())


def _spell(kind: str) -> str:
    """The key of a list of members as Azure spells it."""
    known = {part.key.lower(): part.key for each in NETWORK_KINDS for part in each.parts}
    return known.get(kind.lower(), kind)
