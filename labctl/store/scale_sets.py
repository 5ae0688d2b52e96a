"""Scale sets, their models, and the view of one that the planner is asked about."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from sqlalchemy import Connection, delete, insert, select, update

from labctl.errors import NotFoundError
from labctl.model.plan import HostCapacity, Rollout, ScaleSet
from labctl.model.repair import RepairService
from labctl.model.spec import ScaleSetSpec
from labctl.model.upgrade import UpgradeCode
from labctl.store.arm_resources import forget_scale_set
from labctl.store.instances import load_instances
from labctl.store.repairs import load_recent_repairs
from labctl.store.schema import model, scale_set
from labctl.store.upgrades import change_upgrade, find_running_upgrade


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleSetRow:
    """What is kept of a scale set beside its models and instances."""

    name: str
    model_revision: int
    image_version: str
    image_digest: str
    is_deleting: bool
    next_ordinal: int
    subnet: str | None
    automatic_since: datetime | None  # when automatic OS upgrades were switched on
    repairs_suspended_at: datetime | None
    repairs_suspended_reason: str
    repairs_resumed_at: datetime | None
    created_at: datetime
    image_revision: int
    rollout_asked_at: datetime | None
    rollout_version: str | None
    rollout_digest: str | None


def find_scale_set(connection: Connection, name: str) -> ScaleSetRow | None:
    """The scale set of this name, if there is one."""
    row = connection.execute(select(scale_set).where(scale_set.c.name == name)).first()
    return None if row is None else ScaleSetRow(**row._mapping)


def get_scale_set(connection: Connection, name: str) -> ScaleSetRow:
    """Raises NotFoundError, which names what there is."""
    found = find_scale_set(connection, name)
    if found is None:
        names = [row.name for row in load_scale_sets(connection)]
        if name.lower() in names:
            raise NotFoundError(
                f"scale set {name!r} does not exist",
                detail=f"there is {name.lower()!r}: labctl writes all names in lower case",
                hint=f"say {name.lower()} instead",
            )
        raise NotFoundError(
            f"scale set {name!r} does not exist",
            detail=f"there are: {', '.join(names)}" if names else "there is none yet",
            hint="run: labctl list" if names else "run: labctl apply SPEC.yaml",
        )
    return found


def load_scale_sets(connection: Connection) -> list[ScaleSetRow]:
    """All scale sets by name."""
    rows = connection.execute(select(scale_set).order_by(scale_set.c.name))
    return [ScaleSetRow(**row._mapping) for row in rows]


def insert_scale_set(
    connection: Connection,
    spec: ScaleSetSpec,
    *,
    image_version: str,
    image_digest: str,
    subnet: str | None,
    now: datetime,
) -> None:
    """Record a new scale set with its first model."""
    connection.execute(
        insert(scale_set).values(
            name=spec.name,
            model_revision=1,
            image_version=image_version,
            image_digest=image_digest,
            is_deleting=False,
            next_ordinal=0,
            subnet=subnet,
            created_at=now,
        )
    )
    _insert_model(connection, spec, revision=1, now=now)


def save_model(connection: Connection, spec: ScaleSetSpec, *, now: datetime) -> int:
    """Record a new model of an existing scale set; returns its revision."""
    revision = get_scale_set(connection, spec.name).model_revision + 1
    _insert_model(connection, spec, revision=revision, now=now)
    connection.execute(
        update(scale_set).where(scale_set.c.name == spec.name).values(model_revision=revision)
    )
    return revision


def replace_model(connection: Connection, spec: ScaleSetSpec, *, revision: int) -> None:
    """Rewrite a model in place, for changes that concern no instance: capacity and policies."""
    connection.execute(
        update(model)
        .where(model.c.scale_set == spec.name, model.c.revision == revision)
        .values(spec=_dump_spec(spec))
    )


def load_models(connection: Connection, name: str) -> dict[int, ScaleSetSpec]:
    """All models of a scale set by revision."""
    rows = connection.execute(
        select(model.c.revision, model.c.spec).where(model.c.scale_set == name)
    )
    return {row.revision: _parse_spec(row.spec) for row in rows}


def mark_deleting(connection: Connection, name: str) -> None:
    """Record that the scale set is wanted no more."""
    connection.execute(update(scale_set).where(scale_set.c.name == name).values(is_deleting=True))


def save_automatic_since(connection: Connection, name: str, since: datetime | None) -> None:
    """Record when automatic OS upgrades were switched on; None: they are off."""
    connection.execute(
        update(scale_set).where(scale_set.c.name == name).values(automatic_since=since)
    )


def move_image(
    connection: Connection, name: str, *, version: str, digest: str, revision: int
) -> None:
    """Record which image version new instances boot, and which model asked for it."""
    connection.execute(
        update(scale_set)
        .where(scale_set.c.name == name)
        .values(image_version=version, image_digest=digest, image_revision=revision)
    )


def save_rollout(connection: Connection, name: str, rollout: Rollout | None) -> None:
    """Record that the newest model is to be rolled out; None: no more, or it has begun."""
    connection.execute(
        update(scale_set)
        .where(scale_set.c.name == name)
        .values(
            rollout_asked_at=rollout.asked_at if rollout else None,
            rollout_version=rollout.image_version if rollout else None,
            rollout_digest=rollout.image_digest if rollout else None,
        )
    )


def remove_scale_set(connection: Connection, name: str) -> None:
    """Forget a scale set. Upgrades, events and data disks stay; a running upgrade is over."""
    # The next of this name may be made without the API, and is in no resource group of its own.
    forget_scale_set(connection, name)
    running = find_running_upgrade(connection, name)
    if running is not None:
        change_upgrade(connection, running.id, code=UpgradeCode.CANCELLED.value)
    connection.execute(delete(scale_set).where(scale_set.c.name == name))


def load_view(
    connection: Connection,
    name: str,
    *,
    capacity: HostCapacity,
    models: dict[int, ScaleSetSpec] | None = None,
    instances: Sequence[str] | None = None,
) -> ScaleSet:
    """The planner's view, with every domain still unobserved. Raises NotFoundError.

    With `instances` it has only these: enough to show them, too little to plan.
    """
    row = get_scale_set(connection, name)
    known = load_models(connection, name) if models is None else models
    return ScaleSet(
        name=row.name,
        spec=known[row.model_revision],
        models=known,
        model_revision=row.model_revision,
        image_version=row.image_version,
        image_digest=row.image_digest,
        is_deleting=row.is_deleting,
        next_ordinal=row.next_ordinal,
        instances=load_instances(connection, name, names=instances),
        upgrade=find_running_upgrade(connection, name),
        capacity=capacity,
        rollout=None
        if row.rollout_asked_at is None
        else Rollout(
            asked_at=row.rollout_asked_at,
            image_version=row.rollout_version,
            image_digest=row.rollout_digest,
        ),
        repairs=load_recent_repairs(connection, name, since=row.created_at),
        repair_service=RepairService(
            suspended_at=row.repairs_suspended_at,
            suspended_reason=row.repairs_suspended_reason,
            resumed_at=row.repairs_resumed_at,
        ),
    )


def _dump_spec(spec: ScaleSetSpec) -> str:
    # With protected settings: this file (0600) is the one place where they are kept.
    return spec.model_dump_json(context={"reveal": True})


@lru_cache(maxsize=256)
def _parse_spec(text: str) -> ScaleSetSpec:
    return ScaleSetSpec.model_validate_json(text)


def _insert_model(
    connection: Connection, spec: ScaleSetSpec, *, revision: int, now: datetime
) -> None:
    connection.execute(
        insert(model).values(
            scale_set=spec.name, revision=revision, spec=_dump_spec(spec), created_at=now
        )
    )
