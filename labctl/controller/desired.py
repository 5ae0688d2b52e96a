"""What people ask for, written down as desired state. Nothing here touches an instance."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from sqlalchemy import Connection

from labctl.controller.custom_data import refuse_unfit_custom_data
from labctl.controller.guest_system import refuse_wrong_system
from labctl.controller.models import InstanceNeed, ask_for_rollout
from labctl.controller.protection import refuse_fewer_than_protected
from labctl.controller.record_repair import add_same_generation
from labctl.controller.retries import retry_and_rerun
from labctl.controller.subnets import check_subnet_holds, choose_subnet
from labctl.controller.unchangeable import (
    refuse_other_sizes,
    refuse_what_cannot_change,
)
from labctl.errors import RefusedError
from labctl.model.event import EventKind
from labctl.model.instance import Instance, Wanted
from labctl.model.plan import HostCapacity
from labctl.model.spec import ScaleSetSpec
from labctl.model.upgrade import Member
from labctl.model.upgrade_policy import UpgradeMode
from labctl.planner.impact import LIVE_FIELDS, Impact, Need, find_impacts
from labctl.store.data_disks import load_data_disks
from labctl.store.database import Database
from labctl.store.events import add_event
from labctl.store.gallery import resolve
from labctl.store.instances import (
    change_instance,
    find_scale_set_of,
    forget_hook_failures,
    load_instances,
    remove_extension_runs,
    remove_failed_runs,
    save_failure,
    save_hook_failure,
)
from labctl.store.receivers import save_receivers
from labctl.store.scale_sets import (
    ScaleSetRow,
    find_scale_set,
    get_scale_set,
    insert_scale_set,
    load_models,
    load_view,
    mark_deleting,
    replace_model,
    save_automatic_since,
    save_model,
)
from labctl.store.upgrades import find_running_upgrade

NO_CAPACITY = HostCapacity(boots_at_once=0, free_memory=0, overhead_per_instance=0)
_LIVE = LIVE_FIELDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What `apply` changed."""

    created: bool
    changes: tuple[str, ...]  # for people; empty when the spec was in force already
    impacts: tuple[Impact, ...] = ()  # what each changed field needs
    needs: tuple[InstanceNeed, ...] = ()  # what each instance that is behind needs


def apply_spec(connection: Connection, spec: ScaleSetSpec, *, now: datetime) -> Applied:
    """Create the scale set or change its model.

    Raises NotFoundError for an image that is not in the gallery, RefusedError for what cannot
    change in place.
    """
    row = find_scale_set(connection, spec.name)
    if row is None:
        image = resolve(
            connection, spec.image.definition, spec.image.version, region=spec.region, now=now
        )
        refuse_other_sizes(connection, spec)
        refuse_wrong_system(connection, spec)
        refuse_unfit_custom_data(connection, spec)
        insert_scale_set(
            connection,
            spec,
            image_version=str(image.version),
            image_digest=image.digest,
            subnet=choose_subnet(connection, spec),
            now=now,
        )
        _note_switch(connection, spec, None, now=now)
        save_receivers(connection, spec.name, spec.notifications)
        text = f"created: capacity {spec.capacity}, image {image.name}"
        _note(connection, spec.name, text, now=now)
        return Applied(created=True, changes=(text,))
    if row.is_deleting:
        raise RefusedError(
            f"scale set {spec.name!r} is being deleted",
            hint=f"run: labctl delete {spec.name}, then apply again",
        )
    old = load_models(connection, spec.name)[row.model_revision]
    refuse_what_cannot_change(old, spec)
    refuse_fewer_than_protected(load_instances(connection, spec.name), spec.name, spec.capacity)
    refuse_other_sizes(connection, spec)
    if spec.image != old.image or spec.region != old.region:
        resolve(connection, spec.image.definition, spec.image.version, region=spec.region, now=now)
    refuse_wrong_system(connection, spec)
    refuse_unfit_custom_data(connection, spec)
    changed = [
        name for name in ScaleSetSpec.model_fields if getattr(old, name) != getattr(spec, name)
    ]
    if any(name not in _LIVE for name in changed):
        save_model(connection, spec, now=now)
    elif changed:
        replace_model(connection, spec, revision=row.model_revision)
    _note_switch(connection, spec, row, now=now)
    save_receivers(connection, spec.name, spec.notifications)
    forget_hook_failures(connection, spec.name)
    impacts = find_impacts(old, spec)
    changes = tuple(
        _describe_change(name, old, spec, impact)
        for name, impact in zip(changed, impacts, strict=True)
    )
    is_by_itself = spec.upgrade_policy.mode is not UpgradeMode.MANUAL
    if not is_by_itself:
        changes += retry_and_rerun(connection, spec.name)
    needs = ask_for_rollout(connection, spec.name, now=now)
    if is_by_itself:
        # What gets another model by itself is not tried again with its old one: it would count as
        # on its way, and the rollout would begin although too many are unhealthy.
        renewed = frozenset(need.instance for need in needs)
        changes += retry_and_rerun(connection, spec.name, without=renewed)
    for change in changes:
        _note(connection, spec.name, change, now=now)
    return Applied(created=False, changes=changes, impacts=impacts, needs=needs)


def foresee_spec(database: Database, spec: ScaleSetSpec, *, now: datetime) -> Applied:
    """What `apply_spec` would change; it is tried and undone, with the same errors."""
    with database.write() as connection, connection.begin_nested() as attempt:
        applied = apply_spec(connection, spec, now=now)
        attempt.rollback()
    return applied


def scale(connection: Connection, name: str, capacity: int, *, now: datetime) -> bool:
    """Change the capacity; returns whether it was another before."""
    row = get_scale_set(connection, name)
    if row.is_deleting:
        raise RefusedError(f"scale set {name!r} is being deleted")
    spec = load_models(connection, name)[row.model_revision]
    forget_hook_failures(connection, name)
    if spec.capacity == capacity:
        return False
    wanted = spec.model_copy(update={"capacity": capacity})
    check_subnet_holds(wanted)
    refuse_fewer_than_protected(load_instances(connection, name), name, capacity)
    replace_model(connection, wanted, revision=row.model_revision)
    _note(connection, name, f"capacity {spec.capacity} -> {capacity}", now=now)
    return True


def delete_scale_set(connection: Connection, name: str, *, now: datetime) -> int:
    """Mark a scale set as to be deleted; returns how many data disks will be kept."""
    get_scale_set(connection, name)
    mark_deleting(connection, name)
    for instance in load_instances(connection, name):
        change_instance(connection, instance.name, wanted=Wanted.DELETED.value)
    _note(connection, name, "deletion asked for", now=now)
    return len(load_data_disks(connection, name))


def set_wanted(
    connection: Connection, instances: Sequence[str], wanted: Wanted, *, now: datetime
) -> None:
    """Start or stop instances. Raises NotFoundError for an unknown one, before any change."""
    owners = _owners(connection, instances)
    present = _load_staying(connection, owners)
    for name, scale_set in owners.items():
        change_instance(connection, name, wanted=wanted.value)
        if wanted is Wanted.RUNNING:
            _clear_failure(connection, present[name])
        verb = "start" if wanted is Wanted.RUNNING else "stop"
        _note(connection, scale_set, f"{verb} asked for", now=now, instance=name)


def restart(connection: Connection, instances: Sequence[str], *, now: datetime) -> None:
    """Ask for a stop and a start; clears what an earlier boot failed at."""
    owners = _owners(connection, instances)
    present = _load_staying(connection, owners)
    for name, scale_set in owners.items():
        change_instance(connection, name, wanted=Wanted.RUNNING.value, restart_asked_at=now)
        _clear_failure(connection, present[name])
        _note(connection, scale_set, "restart asked for", now=now, instance=name)


def reimage(connection: Connection, instances: Sequence[str], *, now: datetime) -> None:
    """Ask for a fresh OS disk of the same image version and model; data disks stay."""
    owners = _owners(connection, instances)
    present = _load_staying(connection, owners)
    for scale_set in set(owners.values()):
        upgrade = find_running_upgrade(connection, scale_set)
        for member in upgrade.members if upgrade else ():
            pair = {member.instance, member.carrier} & set(owners)
            if upgrade and pair and member.state.is_moving:
                raise RefusedError(
                    f"upgrade {upgrade.id} is replacing {_what_of(member)} just now",
                    hint=f"run it again afterwards; to see: labctl upgrade watch {scale_set}",
                )
    for name, scale_set in owners.items():
        found = present[name]
        add_same_generation(connection, found, now=now)
        change_instance(connection, name, wanted=Wanted.RUNNING.value)
        text = f"reimage with {found.current.image_version} asked for"
        _note(connection, scale_set, text, now=now, instance=name)


def _what_of(member: Member) -> str:
    if member.replaced_by is not None:
        return f"{member.instance} by {member.replaced_by}"
    return f"the OS disk of {member.instance}"


def rerun(
    connection: Connection,
    scale_set: str,
    *,
    instances: Sequence[str],
    custom_data: bool,
    extensions: bool,
    now: datetime,
) -> list[str]:
    """Run custom data or extensions again on the present OS disks; returns the instances' names."""
    get_scale_set(connection, scale_set)
    if custom_data and load_wish(connection, scale_set).is_windows:
        raise RefusedError(
            f"custom data of scale set {scale_set!r} cannot be repeated: its instances are Windows",
            detail="cloudbase-init runs it once on each OS disk",
            hint="for a fresh OS disk: labctl instance reimage INSTANCE; to repeat a step, make it "
            "an extension",
        )
    present = load_instances(connection, scale_set)
    chosen = [instance for instance in present if not instances or instance.name in instances]
    unknown = set(instances) - {instance.name for instance in chosen}
    if unknown:
        raise RefusedError(
            f"scale set {scale_set!r} has no instance {sorted(unknown)[0]!r}",
            hint=f"run: labctl instance list {scale_set}",
        )
    for instance in chosen:
        if custom_data:
            change_instance(connection, instance.name, rerun_custom_data_asked_at=now)
        if extensions:
            remove_extension_runs(connection, instance.name, instance.generation)
        if not custom_data:  # what custom data failed at is the reason to run it before it is ready
            _clear_failure(connection, instance)
        what = " and ".join(
            word
            for word, is_asked in (("custom data", custom_data), ("extensions", extensions))
            if is_asked
        )
        _note(connection, scale_set, f"rerun of {what} asked for", now=now, instance=instance.name)
    return [instance.name for instance in chosen]


def _owners(connection: Connection, instances: Sequence[str]) -> dict[str, str]:
    return {name: find_scale_set_of(connection, name) for name in instances}


def _load_staying(connection: Connection, owners: dict[str, str]) -> dict[str, Instance]:
    """The instances by name. Raises RefusedError for one that is being deleted."""
    # All at once: a scale set may have 1000, and nobody else can write meanwhile.
    found: dict[str, Instance] = {}
    for scale_set in set(owners.values()):
        names = [name for name, owner in owners.items() if owner == scale_set]
        for instance in load_instances(connection, scale_set, names=names):
            found[instance.name] = instance
            if instance.wanted is Wanted.DELETED:
                raise RefusedError(
                    f"instance {instance.name!r} is being deleted",
                    hint=f"to have it again: labctl scale {scale_set} N, when it is gone",
                )
    return found


def _clear_failure(connection: Connection, instance: Instance) -> None:
    save_failure(connection, instance.name, instance.generation, None)
    save_hook_failure(connection, instance.name, None)
    remove_failed_runs(connection, instance.name, instance.generation)


def _note_switch(
    connection: Connection, spec: ScaleSetSpec, row: ScaleSetRow | None, *, now: datetime
) -> None:
    """Keep since when automatic upgrades are on; the first rollout counts from there."""
    is_on = spec.upgrade_policy.automatic_os_upgrade_policy.enable_automatic_os_upgrade
    was_on = row is not None and row.automatic_since is not None
    if is_on is not was_on:
        save_automatic_since(connection, spec.name, now if is_on else None)


def _note(
    connection: Connection,
    scale_set: str,
    message: str,
    *,
    now: datetime,
    instance: str | None = None,
) -> None:
    add_event(
        connection,
        at=now,
        scale_set=scale_set,
        instance=instance,
        kind=EventKind.REQUEST,
        message=message,
    )


_NEEDS = {
    Need.NOTHING: "needs nothing",
    Need.RERUN_EXTENSIONS: "runs extensions again",
    Need.RESTART: "needs a restart",
    Need.OS_SWAP: "needs a new OS disk",
    Need.RECREATE: "cannot be brought to instances",
}


def _describe_change(name: str, old: ScaleSetSpec, new: ScaleSetSpec, impact: Impact) -> str:
    if name == "capacity":
        return f"capacity {old.capacity} -> {new.capacity}"
    if name in _LIVE:
        return f"{impact.field} changed; it holds at once"
    return (
        f"{impact.field} changed, which {_NEEDS[impact.need]} ({impact.reason}); "
        f"new instances get it, the others {_describe_way(new)}"
    )


def _describe_way(spec: ScaleSetSpec) -> str:
    match spec.upgrade_policy.mode:
        case UpgradeMode.MANUAL:
            return (
                f"by labctl update-instances {spec.name}, or with their next upgrade "
                f"(labctl upgrade plan {spec.name})"
            )
        case UpgradeMode.AUTOMATIC:
            return "now, all at once"
        case UpgradeMode.ROLLING:
            surges = spec.upgrade_policy.rolling_upgrade_policy.max_surge
            return "batch by batch" + (", by new instances that come for them" if surges else "")
        case _:
            assert_never(spec.upgrade_policy.mode)


def load_wish(connection: Connection, name: str) -> ScaleSetSpec:
    """The newest model of a scale set."""
    return load_view(connection, name, capacity=NO_CAPACITY).spec
