"""Instances, their identities and their OS generations."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, delete, insert, select, update

from labctl.errors import NotFoundError
from labctl.model.hook import HookKind
from labctl.model.instance import (
    ExtensionFault,
    ExtensionRun,
    Failure,
    Generation,
    Health,
    HealthState,
    HookFailure,
    Identity,
    Instance,
    Rung,
    Wanted,
)
from labctl.store.schema import extension_run, generation, instance, port

MAX_OUTPUT = 64 * 1024  # characters of an extension's output that are kept


def insert_instance(
    connection: Connection,
    *,
    scale_set: str,
    ordinal: int,
    name: str,
    identity: Identity,
    now: datetime,
) -> None:
    """Record a new instance. Its first generation follows with `add_generation`."""
    connection.execute(
        insert(instance).values(
            name=name,
            scale_set=scale_set,
            ordinal=ordinal,
            wanted=Wanted.RUNNING.value,
            generation=1,
            uuid=str(identity.uuid),
            mac=identity.mac,
            ssh_port=identity.ssh_port,
            agent_port=identity.agent_port,
            probe_port=identity.probe_port,
            address=identity.address,
            host_key=identity.host_key,
            host_key_public=identity.host_key_public,
            agent_token=identity.agent_token,
            health=HealthState.UNKNOWN.value,
            health_detail="",
            created_at=now,
        )
    )
    _reserve_ports(connection, name, identity)


def move_ports(connection: Connection, name: str, identity: Identity) -> None:
    """Give an instance other ports, because its own were taken by a stranger."""
    connection.execute(delete(port).where(port.c.instance == name))
    _reserve_ports(connection, name, identity)
    connection.execute(
        update(instance)
        .where(instance.c.name == name)
        .values(
            ssh_port=identity.ssh_port,
            agent_port=identity.agent_port,
            probe_port=identity.probe_port,
        )
    )


def load_reserved_ports(connection: Connection) -> set[int]:
    """Every port that an instance of this store owns."""
    return set(connection.execute(select(port.c.number)).scalars())


def load_identity(connection: Connection, name: str) -> Identity:
    """Raises NotFoundError."""
    row = connection.execute(select(instance).where(instance.c.name == name)).first()
    if row is None:
        raise _unknown_instance(name)
    return _read_identity(row)


def load_identities(connection: Connection, scale_set: str) -> dict[str, Identity]:
    """The identities of all instances of a scale set, by name."""
    rows = connection.execute(
        select(instance).where(instance.c.scale_set == scale_set).order_by(instance.c.ordinal)
    )
    return {row.name: _read_identity(row) for row in rows}


def find_scale_set_of(connection: Connection, name: str) -> str:
    """The scale set of an instance. Raises NotFoundError."""
    found = connection.execute(select(instance.c.scale_set).where(instance.c.name == name)).scalar()
    if found is None:
        raise _unknown_instance(name)
    return str(found)


def load_instances(
    connection: Connection, scale_set: str, *, names: Sequence[str] | None = None
) -> tuple[Instance, ...]:
    """All instances of a scale set, or these, by ordinal; with nothing observed yet."""
    query = select(instance).where(instance.c.scale_set == scale_set).order_by(instance.c.ordinal)
    if names is not None:
        query = query.where(instance.c.name.in_(names))
    rows = connection.execute(query).all()
    generations = _load_generations(connection, [row.name for row in rows])
    return tuple(
        Instance(
            name=row.name,
            ordinal=row.ordinal,
            wanted=Wanted(row.wanted),
            generation=row.generation,
            generations=tuple(generations[row.name]),
            health=Health(
                state=HealthState(row.health),
                since=row.health_since,
                detail=row.health_detail,
                custom_metrics=row.custom_metrics,
            ),
            restart_asked_at=row.restart_asked_at,
            rerun_custom_data_asked_at=row.rerun_custom_data_asked_at,
            protect_from_scale_in=row.protect_from_scale_in,
            protect_from_scale_set_actions=row.protect_from_scale_set_actions,
            drained_at=row.drained_at,
            out_of_service_since=row.out_of_service_since,
            hook_failure=None
            if row.hook_failed_kind is None
            else HookFailure(
                kind=HookKind(row.hook_failed_kind),
                at=row.hook_failed_at,
                message=row.hook_failed_message,
                tries=row.hook_tries,
            ),
            created_at=row.created_at,
        )
        for row in rows
    )


def change_instance(connection: Connection, name: str, **values: object) -> None:
    """Set columns of one instance."""
    connection.execute(update(instance).where(instance.c.name == name).values(**values))


def save_hook_failure(connection: Connection, name: str, failure: HookFailure | None) -> None:
    """Record that a hook did not do its work; None forgets it."""
    change_instance(
        connection,
        name,
        hook_failed_kind=None if failure is None else failure.kind.value,
        hook_failed_at=None if failure is None else failure.at,
        hook_failed_message=None if failure is None else failure.message,
        hook_tries=0 if failure is None else failure.tries,
    )


def forget_hook_failures(connection: Connection, scale_set: str) -> None:
    """Let hooks that have failed be tried again at once."""
    connection.execute(
        update(instance)
        .where(instance.c.scale_set == scale_set, instance.c.hook_failed_kind.is_not(None))
        .values(hook_failed_kind=None, hook_failed_at=None, hook_failed_message=None, hook_tries=0)
    )


def clear_restart(connection: Connection, name: str, *, until: datetime) -> None:
    """Forget a wish for a restart that a start has fulfilled; a later wish stays."""
    connection.execute(
        update(instance)
        .where(instance.c.name == name, instance.c.restart_asked_at <= until)
        .values(restart_asked_at=None)
    )


def save_health(connection: Connection, name: str, health: Health) -> None:
    """Record a verdict."""
    change_instance(
        connection,
        name,
        health=health.state.value,
        health_since=health.since,
        health_detail=health.detail,
        custom_metrics=health.custom_metrics,
    )


def remove_instance(connection: Connection, name: str) -> None:
    """Forget an instance, its generations and its ports. Data disks stay."""
    connection.execute(delete(instance).where(instance.c.name == name))


def add_generation(
    connection: Connection,
    name: str,
    *,
    number: int,
    image_version: str,
    image_digest: str,
    model_revision: int,
    now: datetime,
) -> None:
    """Record a generation and make it the wanted one."""
    connection.execute(
        insert(generation).values(
            instance=name,
            number=number,
            image_version=image_version,
            image_digest=image_digest,
            model_revision=model_revision,
            prepared=False,
            console_offset=0,
            created_at=now,
        )
    )
    change_instance(connection, name, generation=number)


def change_generation(connection: Connection, name: str, number: int, **values: object) -> None:
    """Set columns of one generation."""
    connection.execute(
        update(generation)
        .where(generation.c.instance == name, generation.c.number == number)
        .values(**values)
    )


def save_failure(connection: Connection, name: str, number: int, failure: Failure | None) -> None:
    """Record why a generation does not get further; None clears it."""
    change_generation(
        connection,
        name,
        number,
        failure_rung=None if failure is None else failure.rung.value,
        failure_message=None if failure is None else failure.message,
        failure_at=None if failure is None else failure.at,
    )


def find_console_offset(connection: Connection, name: str, number: int) -> int:
    """Where in the console log the latest power-on of a generation begins, in bytes."""
    return (
        connection.execute(
            select(generation.c.console_offset).where(
                generation.c.instance == name, generation.c.number == number
            )
        ).scalar()
        or 0
    )


def remove_generation(connection: Connection, name: str, number: int) -> None:
    """Forget a generation whose files are gone."""
    connection.execute(
        delete(extension_run).where(
            extension_run.c.instance == name, extension_run.c.generation == number
        )
    )
    connection.execute(
        delete(generation).where(generation.c.instance == name, generation.c.number == number)
    )


def save_extension_run(
    connection: Connection, name: str, generation_number: int, run: ExtensionRun
) -> None:
    """Record the latest run of an extension on a generation."""
    remove_extension_runs(connection, name, generation_number, extensions=[run.name])
    connection.execute(
        insert(extension_run).values(
            instance=name,
            generation=generation_number,
            name=run.name,
            started_at=run.started_at,
            finished_at=run.finished_at,
            exit_code=run.exit_code,
            output=run.output[-MAX_OUTPUT:],
            fault=None if run.fault is None else run.fault.value,
            tag=run.tag,
        )
    )


def remove_extension_runs(
    connection: Connection,
    name: str,
    generation_number: int,
    *,
    extensions: Sequence[str] | None = None,
) -> None:
    """Forget runs, so that the extensions run again; None means every one."""
    query = delete(extension_run).where(
        extension_run.c.instance == name, extension_run.c.generation == generation_number
    )
    if extensions is not None:
        query = query.where(extension_run.c.name.in_(extensions))
    connection.execute(query)


def remove_failed_runs(connection: Connection, name: str, generation_number: int) -> None:
    """Forget runs that ended badly, so that only those extensions run again."""
    connection.execute(
        delete(extension_run).where(
            extension_run.c.instance == name,
            extension_run.c.generation == generation_number,
            extension_run.c.finished_at.is_not(None),
            extension_run.c.exit_code.is_distinct_from(0),
        )
    )


def _reserve_ports(connection: Connection, name: str, identity: Identity) -> None:
    connection.execute(
        insert(port),
        [
            {"number": number, "instance": name}
            for number in (identity.ssh_port, identity.agent_port, identity.probe_port)
        ],
    )


def _load_generations(
    connection: Connection, names: Sequence[str]
) -> defaultdict[str, list[Generation]]:
    runs: defaultdict[tuple[str, int], list[ExtensionRun]] = defaultdict(list)
    for row in connection.execute(
        select(extension_run)
        .where(extension_run.c.instance.in_(names))
        .order_by(extension_run.c.started_at, extension_run.c.name)
    ):
        runs[row.instance, row.generation].append(
            ExtensionRun(
                name=row.name,
                started_at=row.started_at,
                finished_at=row.finished_at,
                exit_code=row.exit_code,
                output=row.output,
                fault=None if row.fault is None else ExtensionFault(row.fault),
                tag=row.tag,
            )
        )
    found: defaultdict[str, list[Generation]] = defaultdict(list)
    for row in connection.execute(
        select(generation).where(generation.c.instance.in_(names)).order_by(generation.c.number)
    ):
        found[row.instance].append(_read_generation(row, tuple(runs[row.instance, row.number])))
    return found


def _read_generation(row: Row[Any], runs: tuple[ExtensionRun, ...]) -> Generation:
    failure = None
    if row.failure_rung is not None:
        failure = Failure(
            rung=Rung(row.failure_rung), message=row.failure_message, at=row.failure_at
        )
    return Generation(
        number=row.number,
        image_version=row.image_version,
        image_digest=row.image_digest,
        model_revision=row.model_revision,
        prepared=row.prepared,
        started_at=row.started_at,
        ready_at=row.ready_at,
        extensions=runs,
        failure=failure,
        evidence_at=row.evidence_at,
    )


def _read_identity(row: Row[Any]) -> Identity:
    return Identity(
        uuid=UUID(row.uuid),
        mac=row.mac,
        ssh_port=row.ssh_port,
        agent_port=row.agent_port,
        probe_port=row.probe_port,
        address=row.address,
        host_key=row.host_key,
        host_key_public=row.host_key_public,
        agent_token=row.agent_token,
    )


def _unknown_instance(name: str) -> NotFoundError:
    return NotFoundError(
        f"instance {name!r} does not exist", hint="run: labctl instance list SCALE_SET"
    )
