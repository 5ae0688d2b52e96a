"""Who this lab is to Azure's clients: one subscription of one tenant."""

from dataclasses import dataclass
from uuid import uuid4

from sqlalchemy import Connection

from labctl.store.settings import load_setting, save_setting

_SETTING = "api"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabIdentity:
    """Assigned once, when the API is set up."""

    subscription_id: str  # a UUID
    tenant_id: str  # a UUID
    hosts: tuple[str, ...] = ()  # further names and addresses of this host


def find_lab_identity(connection: Connection) -> LabIdentity | None:
    """The ids; None: the API was not set up."""
    saved = load_setting(connection, _SETTING)
    if saved is None:
        return None
    return LabIdentity(
        subscription_id=saved["subscriptionId"],
        tenant_id=saved["tenantId"],
        hosts=tuple(saved["hosts"]),
    )


def ensure_lab_identity(connection: Connection, *, hosts: tuple[str, ...] = ()) -> LabIdentity:
    """The ids, assigned now if they were not yet; `hosts` are added to those that are known."""
    present = find_lab_identity(connection)
    known = () if present is None else present.hosts
    wanted = tuple(dict.fromkeys((*known, *hosts)))
    if present is not None and wanted == known:
        return present
    found = LabIdentity(
        subscription_id=str(uuid4()) if present is None else present.subscription_id,
        tenant_id=str(uuid4()) if present is None else present.tenant_id,
        hosts=wanted,
    )
    value = {
        "subscriptionId": found.subscription_id,
        "tenantId": found.tenant_id,
        "hosts": list(found.hosts),
    }
    save_setting(connection, _SETTING, value)
    return found
