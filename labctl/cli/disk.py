"""The commands for data disks, which outlive instances and scale sets."""

from typing import Annotated

import typer

from labctl.cli.context import current_context
from labctl.cli.output import Output, print_document, print_rows
from labctl.errors import NotFoundError, RefusedError


def list_(
    scale_set: Annotated[
        str | None, typer.Argument(metavar="SCALE_SET", help="Only of this one.")
    ] = None,
) -> None:
    """List data disks, also those whose instance or scale set is gone."""
    from labctl.cli.follow import opened_store
    from labctl.model.quantity import format_size
    from labctl.store.data_disks import load_data_disks
    from labctl.store.instances import load_instances

    context = current_context()
    with opened_store(context) as database, database.read() as connection:
        disks = load_data_disks(connection, scale_set)
        owners = {
            instance.name
            for name in {disk.scale_set for disk in disks}
            for instance in load_instances(connection, name)
        }
    rows = [
        {
            "name": f"{disk.instance}/{disk.name}",
            "size": format_size(disk.size),
            "sizeBytes": disk.size,
            "inUse": disk.instance in owners,
            "createdAt": disk.created_at,
            "path": disk.path,
        }
        for disk in disks
    ]
    columns = ["name", "size", "inUse", "createdAt", "path"]
    print_rows(rows, columns, context.output, empty="no data disks")


def delete(
    name: Annotated[str, typer.Argument(metavar="INSTANCE/DISK", help="For example web_3/db.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a data disk whose instance is gone. There is no way back."""
    from labctl.cli.follow import opened_store
    from labctl.cli.wishes import confirm
    from labctl.controller.lock import try_lock
    from labctl.drivers.disks import DataDeletionConsent, DataDisk, destroy_data_disk
    from labctl.store.data_disks import load_data_disks, remove_data_disk
    from labctl.store.instances import load_instances

    context = current_context()
    with opened_store(context) as database:
        with database.read() as connection:
            disks = {f"{disk.instance}/{disk.name}": disk for disk in load_data_disks(connection)}
            row = disks.get(name)
            if row is None:
                raise NotFoundError(
                    f"data disk {name!r} does not exist", hint="run: labctl disk list"
                )
            owners = {instance.name for instance in load_instances(connection, row.scale_set)}
        if row.instance in owners:
            raise RefusedError(
                f"data disk {name!r} belongs to instance {row.instance}",
                detail="only disks whose instance is gone can be deleted",
                hint=f"run: labctl scale {row.scale_set} N, or labctl delete {row.scale_set}",
            )
        confirm(f"delete data disk {name} ({row.path}) for ever?", yes=yes)
        # Instances are made and get their disks under this lock only.
        with try_lock(context.settings, row.scale_set) as is_ours:
            if not is_ours:
                raise RefusedError(
                    f"another labctl process works on scale set {row.scale_set!r}",
                    hint="try again when it is done",
                )
            with database.read() as connection:
                owners = {i.name for i in load_instances(connection, row.scale_set)}
            if row.instance in owners:
                raise RefusedError(
                    f"data disk {name!r} belongs to instance {row.instance}, which is new",
                    hint="run: labctl disk list",
                )
            disk = DataDisk(path=row.path, name=row.name, serial=row.serial, size=row.size)
            destroy_data_disk(disk, DataDeletionConsent(file_names=frozenset({row.path.name})))
            with database.write() as connection:
                remove_data_disk(connection, row)
    if context.output is Output.TABLE:
        print(f"{name}: deleted")
    else:
        print_document({"name": name, "deleted": True}, context.output)
