"""What a new spec must not change of a scale set that is there."""

from sqlalchemy import Connection

from labctl.controller.guest_system import refuse_other_system
from labctl.controller.places import refuse_other_places
from labctl.controller.subnets import check_subnet_holds
from labctl.errors import RefusedError
from labctl.model.spec import ScaleSetSpec
from labctl.store.data_disks import load_data_disks


def refuse_what_cannot_change(old: ScaleSetSpec, new: ScaleSetSpec) -> None:
    """Raises RefusedError for a change that no instance could be brought to."""
    if old.network != new.network:
        raise RefusedError(
            f"the network of scale set {new.name!r} cannot change",
            detail=f"it is {old.network.type!r}, the spec says {new.network.type!r}",
            hint="apply the spec under another name",
        )
    refuse_other_system(old, new)
    refuse_other_repairs(old, new)
    refuse_other_places(old, new)
    wanted = {disk.name: disk for disk in new.data_disks}
    for disk in old.data_disks:
        kept = wanted.get(disk.name)
        if kept is None:
            raise RefusedError(
                f"data disk {disk.name!r} cannot be taken out of scale set {new.name!r}",
                detail="the instances hold data on it",
                hint="put it back into the spec, or delete the scale set and then the disk",
            )
        if kept.size != disk.size:
            raise RefusedError(
                f"data disk {disk.name!r} of scale set {new.name!r} cannot change its size",
                detail=f"it has {disk.size} bytes, the spec says {kept.size}",
                hint="add another data disk with the size that you need",
            )
    check_subnet_holds(new)


def refuse_other_repairs(old: ScaleSetSpec, new: ScaleSetSpec) -> None:
    """As in Azure: what began as one kind of repair shall not end as another."""
    before, after = old.automatic_repairs_policy, new.automatic_repairs_policy
    if before.enabled and after.enabled and before.repair_action is not after.repair_action:
        raise RefusedError(
            f"the repair action of scale set {new.name!r} cannot change while repairs are enabled",
            detail=f"it is {before.repair_action}, the spec says {after.repair_action}",
            hint="apply automaticRepairsPolicy.enabled: false first, then the new action",
        )


def refuse_other_sizes(connection: Connection, spec: ScaleSetSpec) -> None:
    """Kept data disks come back as they are, so the spec must know their size."""
    sizes = {disk.name: disk.size for disk in spec.data_disks}
    for kept in load_data_disks(connection, spec.name):
        if kept.name in sizes and sizes[kept.name] != kept.size:
            raise RefusedError(
                f"data disk {kept.instance}/{kept.name} is kept from before, with another size",
                detail=f"it has {kept.size} bytes, the spec says {sizes[kept.name]}",
                hint=f"set the size back, or give it up: labctl disk delete "
                f"{kept.instance}/{kept.name}",
            )
