"""Which instances were deallocated: to a lab that is powerOff, to clients it is not."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection

from labctl.api.scale_set_ids import FoundSet
from labctl.model.instance import Instance
from labctl.store.arm_resources import find_resource, remove_resource, save_resource

_KIND = "labctl/power"  # no type of Azure's; the row is below that of the scale set


def note_power(
    connection: Connection,
    found: FoundSet,
    names: Sequence[str],
    instances: Sequence[Instance],
    *,
    deallocates: bool,
    now: datetime,
) -> None:
    """Remember that these were deallocated, or that something else was asked of them since."""
    before = load_deallocated(connection, found)
    made = {instance.name: instance.created_at.isoformat() for instance in instances}
    after = {
        name: at for name, at in before.items() if name not in names and made.get(name, at) == at
    }
    if deallocates:
        after |= {name: made[name] for name in names if name in made}
    if after == before:
        return
    if not after:
        remove_resource(connection, _make_id(found))
        return
    save_resource(
        connection,
        _make_id(found),
        type=_KIND,
        group=found.id.group,
        name=found.name,
        document={"deallocated": after},
        now=now,
    )


def load_deallocated(connection: Connection, found: FoundSet) -> Mapping[str, str]:
    """When each instance was made that was deallocated; another of its name was not."""
    row = find_resource(connection, _make_id(found))
    return {} if row is None else dict(row.document["deallocated"])


def _make_id(found: FoundSet) -> str:
    return f"{found.id}/{_KIND}"
