"""Instances as they are shown: what the store says, with what was seen of them last."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from labctl.api.desk import Desk
from labctl.api.power import load_deallocated
from labctl.api.scale_set_ids import FoundSet, read_ordinal
from labctl.arm.errors import resource_not_found
from labctl.arm.instance_views import ExtensionKind, Judged, find_kinds
from labctl.arm.instances import Frame
from labctl.arm.statuses import ProvisioningState
from labctl.controller.board import Sight
from labctl.controller.desired import NO_CAPACITY
from labctl.model.instance import DomainFacts, Health, Instance, Power, Wanted
from labctl.model.placement import place
from labctl.model.plan import ScaleSet
from labctl.planner import has_latest_model
from labctl.planner.health import Verdict, find_failure, find_next_extension, judge
from labctl.planner.situation import Situation, has_served, survey
from labctl.store.instance_index import InstanceKey, load_instance_keys
from labctl.store.scale_sets import load_view

# Keepers look at least every few seconds; what is older was seen by one that is no more.
_SIGHT_LASTS = timedelta(seconds=60)


def load_shown(
    connection: Connection,
    desk: Desk,
    found: FoundSet,
    frame: Frame,
    keys: Sequence[InstanceKey],
    *,
    now: datetime,
) -> list[Judged]:
    """These instances with what the planner makes of their facts. Asks no hypervisor."""
    names = [key.name for key in keys]
    view = load_view(connection, found.name, capacity=NO_CAPACITY, instances=names)
    view = add_sight(view, desk.board.find(found.name), now)
    uuids = {key.name: key.uuid for key in keys}
    kinds = find_kinds((frame.profile.get("extensionProfile") or {}).get("extensions"))
    deallocated = load_deallocated(connection, found)
    return [
        replace(
            _judge(view, situation, uuids.get(situation.instance.name, ""), kinds),
            is_deallocated=deallocated.get(situation.instance.name)
            == situation.instance.created_at.isoformat(),
        )
        for situation in survey(view)
    ]


def find_key(connection: Connection, found: FoundSet, instance_id: str) -> InstanceKey:
    """The instance with this id. Raises ArmError (404)."""
    ordinal = read_ordinal(instance_id, found.name)
    keys = [] if ordinal is None else load_instance_keys(connection, found.name, ordinal=ordinal)
    if not keys:
        raise resource_not_found(str(found.id.child("virtualMachines", instance_id[:80])))
    return keys[0]


def add_sight(view: ScaleSet, sight: Sight | None, now: datetime) -> ScaleSet:
    """The store's view with domains and health as they were seen last, where they were."""
    if sight is not None and abs(now - sight.at) > _SIGHT_LASTS:
        sight = None
    seen = {each.name: each for each in sight.view.instances} if sight else {}
    instances = tuple(_add_facts(each, seen.get(each.name)) for each in view.instances)
    return replace(view, instances=instances, setbacks=sight.view.setbacks if sight else {})


def _add_facts(instance: Instance, seen: Instance | None) -> Instance:
    if seen is None or seen.created_at != instance.created_at:
        # Whoever works on it writes each start down; what it boots is known, if it is on.
        was_started = instance.current.started_at is not None
        domain = DomainFacts(
            generation=instance.generation if was_started else None, power=Power.UNKNOWN
        )
        return replace(instance, domain=domain)
    return replace(instance, domain=seen.domain, health=_choose_newer(instance, seen))


def _choose_newer(instance: Instance, seen: Instance) -> Health:
    stored, looked = instance.health, seen.health
    if looked.since is None or (stored.since is not None and stored.since > looked.since):
        return stored
    return looked


def _judge(
    view: ScaleSet, situation: Situation, uuid: str, kinds: Mapping[str, ExtensionKind]
) -> Judged:
    instance = situation.instance
    verdict = _find_verdict(situation)
    state, trouble = find_state(situation)
    return Judged(
        instance=instance,
        model=situation.model,
        placement=place(view.spec, instance.ordinal),
        state=state,
        trouble=trouble,
        health=None if verdict is None else verdict.state,
        health_reason="" if verdict is None else verdict.reason,
        has_latest_model=has_latest_model(view, instance),
        uuid=uuid,
        extensions=kinds,
    )


def _find_verdict(situation: Situation) -> Verdict | None:
    """Nobody asks for the health of what its user has stopped."""
    instance = situation.instance
    if instance.wanted is not Wanted.RUNNING:
        return None
    if instance.domain.power is Power.UNKNOWN and instance.current.is_ready:
        # Nobody looks at it at present: the verdict that was written down is the latest.
        return Verdict(state=instance.health.state, reason=instance.health.detail)
    return judge(situation)


def find_state(situation: Situation) -> tuple[ProvisioningState, str]:
    """How far labctl is with an instance, and why it is no further."""
    instance, domain = situation.instance, situation.instance.domain
    if instance.wanted is Wanted.DELETED:
        return ProvisioningState.DELETING, ""
    failure = find_failure(situation)
    if failure is not None and instance.wanted is Wanted.RUNNING:
        return ProvisioningState.FAILED, f"{failure.rung.value}: {failure.message}"
    if instance.hook_failure is not None:
        return (
            ProvisioningState.FAILED,
            f"{instance.hook_failure.kind.value}: {instance.hook_failure.message}",
        )
    if instance.wanted is Wanted.STOPPED:
        is_off = domain.power in {Power.STOPPED, Power.UNKNOWN}
        return (ProvisioningState.SUCCEEDED if is_off else ProvisioningState.UPDATING), ""
    is_seen = domain.power is not Power.UNKNOWN
    is_settled = instance.is_settled if is_seen else instance.current.is_ready
    if is_settled and find_next_extension(situation) is None and not situation.is_moving:
        return ProvisioningState.SUCCEEDED, ""
    setback = "" if situation.setback is None else situation.setback.reason
    if not has_served(instance):
        return ProvisioningState.CREATING, setback
    return ProvisioningState.UPDATING, setback
