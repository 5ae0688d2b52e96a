"""Scale sets as documents: what is shown of one, and what a client's document makes of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from sqlalchemy import Connection

from labctl.api.call import Call
from labctl.api.desk import Desk
from labctl.api.host_facts import check_zones
from labctl.api.images import describe_image, find_image
from labctl.api.probes import find_probe
from labctl.api.respond import make_etag
from labctl.api.scale_set_ids import SET_TYPE, FoundSet, find_set_by_name
from labctl.arm.errors import ArmError, Document, ErrorDetail, conflict
from labctl.arm.ids import ResourceId
from labctl.arm.instances import Frame
from labctl.arm.statuses import ProvisioningState
from labctl.arm.vmss import (
    Shown,
    find_kept,
    merge_document,
    read_scale_set,
    render_scale_set,
)
from labctl.controller.desired import Applied, apply_spec
from labctl.controller.resources import require_unexpired
from labctl.controller.set_operations import SET_APPLY
from labctl.model.access import Scope
from labctl.model.health_source import HealthProbe
from labctl.model.spec import ScaleSetSpec
from labctl.model.upgrade_policy import UpgradeMode
from labctl.planner import find_change
from labctl.store.arm_resources import save_resource
from labctl.store.instance_index import count_instances
from labctl.store.operations import OperationStatus, find_last_of_kind, load_open_operations
from labctl.store.scale_sets import find_scale_set, load_models
from labctl.store.upgrades import find_running_upgrade, load_upgrades

Json = Any  # what json.loads gives


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """Looks up what a document names in the store."""

    connection: Connection
    desk: Desk

    def find_image(self, reference: Document, target: str) -> tuple[str, str]:
        """The image's definition, and its version or `latest`."""
        return find_image(self.connection, reference, target=target, desk=self.desk)

    def find_probe(self, identifier: str, target: str) -> HealthProbe:
        """The probe of a load balancer."""
        return find_probe(self.connection, identifier, target=target)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a document has made of a scale set."""

    found: FoundSet
    applied: Applied
    goal: Document  # for the operation that waits for it


def load_spec(connection: Connection, found: FoundSet) -> ScaleSetSpec:
    """The newest model."""
    return load_models(connection, found.name)[found.row.model_revision]


def show_set(connection: Connection, desk: Desk, found: FoundSet) -> Document:
    """The whole resource with its etag."""
    document = _render(connection, desk, found)
    return document | {"etag": _make_etag(document, found.row.model_revision)}


def _make_etag(document: Document, revision: int) -> str:
    """Of the model part: what an instance does is no change of its scale set.

    The revision stands for what is not shown: custom data and protected settings. A digest of them
    would let readers guess them.
    """
    properties = document.get("properties")
    model = dict(properties) if isinstance(properties, dict) else {}
    model.pop("provisioningState", None)
    return make_etag(document | {"properties": model, "revision": revision})


def make_frame(connection: Connection, desk: Desk, found: FoundSet) -> Frame:
    """What all instances of a scale set have in common."""
    document: Json = _render(connection, desk, found, state=ProvisioningState.SUCCEEDED)
    profile: Mapping[str, Json] = document["properties"]["virtualMachineProfile"]
    sku = document["sku"]
    return Frame(
        id=found.id,
        location=document["location"],
        sku={"name": sku["name"], "tier": sku.get("tier", "Standard")},
        image=profile["storageProfile"]["imageReference"],
        profile=profile,
    )


def write_set(
    connection: Connection,
    desk: Desk,
    call: Call,
    identifier: ResourceId,
    found: FoundSet | None,
    body: object,
) -> Written:
    """Merge a client's document over what is shown, and make the result the model.

    Raises ArmError for what cannot be taken, LabError for what cannot change.
    """
    if found is not None and found.row.is_deleting:
        raise conflict(
            f"The scale set '{found.id.name}' is being deleted; make it again when it is gone.",
            target=str(found.id),
        )
    present = None if found is None else load_spec(connection, found)
    shown = None if found is None else _render(connection, desk, found)
    reading = read_scale_set(
        merge_document(shown or {}, body),
        name=identifier.name,
        current=present,
        rendered=shown,
        references=References(connection=connection, desk=desk),
    )
    if reading.host_access and not call.principal.scope.allows(Scope.ADMIN):
        raise ArmError(
            403,
            "AuthorizationFailed",
            f"'{reading.host_access[0]}' reaches into the host of the lab: only a token with the "
            f"scope 'admin' may set it, and '{call.principal.name}' has "
            f"'{call.principal.scope}'.",
            target=reading.host_access[0],
            details=tuple(
                ErrorDetail(code="AuthorizationFailed", message="needs scope admin", target=path)
                for path in reading.host_access
            ),
        )
    if reading.spec != present:
        _require_unexpired(reading.spec, call)
    check_zones(reading.spec)
    name = reading.spec.name
    running = find_running_upgrade(connection, name)
    past = load_upgrades(connection, name, limit=1)
    before = None if found is None else found.row.model_revision
    applied = apply_spec(connection, reading.spec, now=call.now)
    save_resource(
        connection,
        str(identifier),
        type=SET_TYPE,
        group=identifier.group,
        name=identifier.name,
        document=reading.kept,
        now=call.now,
    )
    written = find_set_by_name(connection, desk, name)
    if written is None:
        raise LookupError(f"scale set {name} is gone in the transaction that wrote it")
    revision = written.row.model_revision
    is_new = before is not None and revision != before
    goal: Document = {
        "since": call.now.isoformat(),
        "revision": revision if is_new or is_rolled_out(applied, reading.spec) else None,
        "after": running.id - 1 if running else past[0].id if past else 0,
        "creates": found is None,
    }
    return Written(found=written, applied=applied, goal=goal)


def is_rolled_out(applied: Applied, spec: ScaleSetSpec) -> bool:
    """Does the model go to instances that are behind now, whether or not it is a new one?"""
    return bool(applied.needs) and spec.upgrade_policy.mode is not UpgradeMode.MANUAL


def find_set_state(connection: Connection, desk: Desk, found: FoundSet) -> ProvisioningState:
    """How far labctl is with a scale set."""
    row = found.row
    if row.is_deleting:
        return ProvisioningState.DELETING
    operations = [
        each
        for each in load_open_operations(connection, scale_set=row.name)
        if each.started_at >= row.created_at
    ]
    if any(each.goal.get("creates") for each in operations):
        return ProvisioningState.CREATING
    if operations or row.rollout_asked_at or find_running_upgrade(connection, row.name):
        return ProvisioningState.UPDATING
    last = find_last_of_kind(connection, row.name, SET_APPLY, since=row.created_at)
    if last is not None and last.status is OperationStatus.FAILED:
        return ProvisioningState.FAILED
    spec = load_spec(connection, found)
    if count_instances(connection, row.name) == spec.capacity:
        return ProvisioningState.SUCCEEDED
    sight = desk.board.find(row.name)
    # Where more are protected from scale-in than the capacity is, they stay. A look from before the
    # present capacity tells nothing.
    is_through = sight is not None and sight.view.spec == spec and find_change(sight.view) is None
    return ProvisioningState.SUCCEEDED if is_through else ProvisioningState.UPDATING


def reload(connection: Connection, desk: Desk, found: FoundSet) -> FoundSet:
    """The same scale set as it is by now in this transaction."""
    if find_scale_set(connection, found.name) is None:
        return found
    return find_set_by_name(connection, desk, found.name) or found


def _require_unexpired(spec: ScaleSetSpec, call: Call) -> None:
    """What can be told of credentials without asking anybody; servers are asked when it begins."""
    if spec.upgrade_policy.automatic_os_upgrade_policy.enable_automatic_os_upgrade:
        for extension in spec.extensions:
            require_unexpired(extension, call.now)


def _render(
    connection: Connection,
    desk: Desk,
    found: FoundSet,
    *,
    state: ProvisioningState | None = None,
) -> Document:
    spec = load_spec(connection, found)
    kept: Document = {} if found.resource is None else found.resource.document
    written = find_kept(kept, "storageProfile", "imageReference")
    shown = Shown(
        id=found.id,
        kept=kept,
        image=describe_image(
            connection,
            spec.image.definition,
            spec.image.version,
            desk=desk,
            written=written if isinstance(written, dict) else None,
        ),
        probe_id=_find_probe_id(connection, kept, spec),
        provisioning_state=(state or find_set_state(connection, desk, found)).value,
        unique_id=str(uuid5(NAMESPACE_URL, f"{found.name}/{found.row.created_at.isoformat()}")),
        created_at=found.row.created_at,
    )
    # Who sets one tag looks for the others first; without any, az says that there is no place.
    return {"tags": {}, **render_scale_set(spec, shown)}


def _find_probe_id(connection: Connection, kept: Document, spec: ScaleSetSpec) -> str | None:
    """The probe that the client named, while it is still what the spec says."""
    named = find_kept(kept, "networkProfile", "healthProbe")
    identifier = named.get("id") if isinstance(named, dict) else None
    if spec.health.probe is None or not isinstance(identifier, str):
        return None
    try:
        probe = find_probe(connection, identifier, target="healthProbe.id")
    except ArmError:  # it is gone, or asks in another way by now
        return None
    return identifier if probe == spec.health.probe else None
