"""Data disks. Their rows outlive instances, so that no disk is ever forgotten."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, delete, insert, select, update

from labctl.store.schema import data_disk


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDiskRow:
    """One data disk and whose it is."""

    scale_set: str
    ordinal: int
    name: str
    path: Path
    serial: str
    size: int  # bytes
    created_at: datetime
    is_made: bool = False  # the file was there once; if it is not now, data is missing

    @property
    def instance(self) -> str:
        """The instance that has it, or had it, or will have it again."""
        return f"{self.scale_set}_{self.ordinal}"


def insert_data_disk(connection: Connection, row: DataDiskRow) -> None:
    """Record a disk before its file is made."""
    connection.execute(
        insert(data_disk).values(
            scale_set=row.scale_set,
            ordinal=row.ordinal,
            name=row.name,
            path=str(row.path),
            serial=row.serial,
            size=row.size,
            is_made=row.is_made,
            created_at=row.created_at,
        )
    )


def mark_made(connection: Connection, path: Path) -> None:
    """Record that the file of a disk is there."""
    connection.execute(update(data_disk).where(data_disk.c.path == str(path)).values(is_made=True))


def load_data_disks(
    connection: Connection, scale_set: str | None = None, ordinal: int | None = None
) -> list[DataDiskRow]:
    """Data disks by scale set, ordinal and name."""
    query = select(data_disk).order_by(data_disk.c.scale_set, data_disk.c.ordinal, data_disk.c.name)
    if scale_set is not None:
        query = query.where(data_disk.c.scale_set == scale_set)
    if ordinal is not None:
        query = query.where(data_disk.c.ordinal == ordinal)
    return [
        DataDiskRow(**{**row._mapping, "path": Path(row.path)}) for row in connection.execute(query)
    ]


def remove_data_disk(connection: Connection, row: DataDiskRow) -> None:
    """Forget a disk whose file its user has deleted on purpose."""
    connection.execute(
        delete(data_disk).where(
            data_disk.c.scale_set == row.scale_set,
            data_disk.c.ordinal == row.ordinal,
            data_disk.c.name == row.name,
        )
    )
