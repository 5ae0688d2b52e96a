"""The gallery: image definitions, their versions, and who uses which file."""

from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from labctl.errors import InvalidError, NotFoundError, RefusedError
from labctl.model.image import (
    LATEST,
    ImageDefinition,
    ImageVersion,
    OsType,
    Replica,
    VersionNumber,
    find_latest,
)
from labctl.model.spec import DEFAULT_REGION
from labctl.model.upgrade import UpgradeCode
from labctl.store.schema import (
    generation,
    image_definition,
    image_replica,
    image_version,
    instance,
    scale_set,
    upgrade,
)

_RUNNING = [code.value for code in UpgradeCode if not code.is_final]


def ensure_definition(
    connection: Connection, definition: ImageDefinition, created_at: datetime
) -> bool:
    """Add a definition. False: it was there; a description that is given replaces the old one.

    Raises RefusedError when it was there for another operating system.
    """
    found = find_definition(connection, definition.name)
    if found is None:
        connection.execute(
            insert(image_definition).values(
                name=definition.name,
                os_type=definition.os_type,
                description=definition.description,
                created_at=created_at,
            )
        )
        return True
    if found.os_type != definition.os_type:
        raise RefusedError(
            f"image definition {definition.name!r} is for {found.os_type},"
            f" not for {definition.os_type}",
            hint="use another definition name",
        )
    if definition.description and definition.description != found.description:
        connection.execute(
            update(image_definition)
            .where(image_definition.c.name == definition.name)
            .values(description=definition.description)
        )
    return False


def set_description(connection: Connection, name: str, description: str) -> None:
    """Describe a definition, for people."""
    connection.execute(
        update(image_definition)
        .where(image_definition.c.name == name)
        .values(description=description)
    )


def find_definition(connection: Connection, name: str) -> ImageDefinition | None:
    """The definition of this name, if there is one."""
    found = [each for each in load_definitions(connection) if each.name == name]
    return found[0] if found else None


def load_definitions(connection: Connection) -> tuple[ImageDefinition, ...]:
    """All definitions by name."""
    rows = connection.execute(select(image_definition).order_by(image_definition.c.name))
    return tuple(
        ImageDefinition(name=row.name, os_type=OsType(row.os_type), description=row.description)
        for row in rows
    )


def find_os_type(connection: Connection, digest: str, definition: str) -> OsType:
    """What the file is, as `definition` tells, or any other that has the file."""
    rows = connection.execute(
        select(image_definition.c.name, image_definition.c.os_type)
        .join(image_version, image_version.c.definition == image_definition.c.name)
        .where(image_version.c.digest == digest)
        .order_by(image_definition.c.name)
    )
    found = {row.name: OsType(row.os_type) for row in rows}
    return found.get(definition) or next(iter(found.values()), OsType.LINUX)


def add_version(connection: Connection, image: ImageVersion) -> bool:
    """Add a version to its definition. False: the same file was there under that version.

    Raises RefusedError when the version is taken by another file: versions never change.
    """
    found = find_version(connection, image.definition, image.version)
    if found is not None:
        if found.digest == image.digest:
            return False
        raise RefusedError(
            f"image {image.name} exists with other content",
            detail=f"gallery: sha256 {found.digest}; new file: sha256 {image.digest}",
            hint="choose a higher version; a version never changes once it is in the gallery",
        )
    connection.execute(
        insert(image_version).values(
            definition=image.definition,
            version=str(image.version),
            digest=image.digest,
            file_size=image.file_size,
            virtual_size=image.virtual_size,
            created_at=image.created_at,
            published_at=image.published_at,
            excluded_from_latest=image.excluded_from_latest,
            end_of_life=image.end_of_life,
            build_id=image.build_id,
            source=image.source,
        )
    )
    return True


def load_versions(
    connection: Connection, definition: str | None = None
) -> tuple[ImageVersion, ...]:
    """Versions of one definition, or of all, by definition and number."""
    query = select(image_version)
    if definition is not None:
        query = query.where(image_version.c.definition == definition)
    replicas = _load_replicas(connection, definition)
    versions = (
        ImageVersion(
            **{
                **row._mapping,
                "version": VersionNumber.parse(row.version),
                "replicas": tuple(replicas.get((row.definition, row.version), ())),
            }
        )
        for row in connection.execute(query)
    )
    return tuple(sorted(versions, key=lambda image: (image.definition, image.version)))


def find_version(
    connection: Connection, definition: str, version: VersionNumber
) -> ImageVersion | None:
    """The version with this number, if there is one."""
    found = [each for each in load_versions(connection, definition) if each.version == version]
    return found[0] if found else None


def resolve(
    connection: Connection,
    definition: str,
    version: str,
    *,
    now: datetime,
    region: str = DEFAULT_REGION,
) -> ImageVersion:
    """The version that `latest` or `1.2.0` means in `region`; a number need not be published.

    Raises InvalidError for what is no version, NotFoundError that names what there is.
    """
    wanted = None if version == LATEST else VersionNumber.parse(version)
    if find_definition(connection, definition) is None:
        names = ", ".join(each.name for each in load_definitions(connection))
        raise NotFoundError(
            f"image definition {definition!r} is not in the gallery",
            detail=f"there are: {names}" if names else "the gallery is empty",
            hint=f"run: labctl image build images/{definition} --version 1.0.0 --publish"
            if definition in {"tiny", "debian-12", "debian-13"}
            else f"run: labctl image import FILE --definition {definition} --version 1.0.0",
        )
    versions = load_versions(connection, definition)
    if wanted is None:
        latest = find_latest(versions, region=region, now=now)
        if latest is not None:
            return latest
        brief = f"image {definition!r} has no version that `latest` may mean in region {region}"
    else:
        for each in versions:
            if each.version == wanted:
                return each
        brief = f"image {definition}/{wanted} is not in the gallery"
    raise NotFoundError(
        brief,
        detail="there are: " + ", ".join(_tell(each, region, now) for each in versions)
        if versions
        else "the definition has no versions",
        hint=f"run: labctl image publish {versions[-1].name} --region {region}"
        if wanted is None and versions and versions[-1].replicas
        else f"run: labctl image publish {versions[-1].name}"
        if wanted is None and versions
        else f"run: labctl image list {definition}",
    )


def get_version(
    connection: Connection, definition: str, version: VersionNumber, *, now: datetime
) -> ImageVersion:
    """The version with this number. Raises NotFoundError that names what there is."""
    return resolve(connection, definition, str(version), now=now)


def remove_version(
    connection: Connection, definition: str, version: VersionNumber, *, now: datetime
) -> ImageVersion:
    """Forget a version. Its file is the caller's affair, once this is committed.

    Raises NotFoundError, and RefusedError while something uses the file and no other version
    would keep it.
    """
    image = get_version(connection, definition, version, now=now)
    users = find_users(connection, image.digest)
    keepers = [
        each
        for each in load_versions(connection)
        if each.digest == image.digest and each.name != image.name
    ]
    if users and not keepers:
        raise RefusedError(
            f"image {image.name} is in use",
            detail=f"used by: {', '.join(users)}",
            hint="upgrade or delete these first, or keep it from new ones with"
            f" `labctl image exclude {image.name}`",
        )
    connection.execute(
        delete(image_version).where(
            image_version.c.definition == definition, image_version.c.version == str(version)
        )
    )
    return image


def remove_definition(connection: Connection, name: str) -> None:
    """Forget a definition that has no versions. Raises NotFoundError, RefusedError."""
    if find_definition(connection, name) is None:
        raise NotFoundError(
            f"image definition {name!r} is not in the gallery", hint="run: labctl image list"
        )
    versions = load_versions(connection, name)
    if versions:
        raise RefusedError(
            f"image definition {name!r} has versions",
            detail=", ".join(each.name for each in versions),
            hint=f"run: labctl image delete {versions[0].name}",
        )
    connection.execute(delete(image_definition).where(image_definition.c.name == name))


def find_users(connection: Connection, digest: str) -> tuple[str, ...]:
    """Who needs the file: `scale set web`, `instance web_3 (generation 2)`, `upgrade 4 of web`."""
    sets = connection.execute(
        select(scale_set.c.name)
        .where(scale_set.c.image_digest == digest)
        .order_by(scale_set.c.name)
    )
    rollouts = connection.execute(
        select(scale_set.c.name)
        .where(scale_set.c.rollout_digest == digest)
        .order_by(scale_set.c.name)
    )
    generations = connection.execute(
        select(generation.c.instance, generation.c.number)
        .join(instance, instance.c.name == generation.c.instance)
        .where(generation.c.image_digest == digest)
        .order_by(instance.c.scale_set, instance.c.ordinal, generation.c.number)
    )
    upgrades = connection.execute(
        select(upgrade.c.id, upgrade.c.scale_set)
        .where(upgrade.c.target_digest == digest, upgrade.c.code.in_(_RUNNING))
        .order_by(upgrade.c.id)
    )
    return (
        *(f"scale set {row.name}" for row in sets),
        *(f"the next rollout of {row.name}" for row in rollouts),
        *(f"instance {row.instance} (generation {row.number})" for row in generations),
        *(f"upgrade {row.id} of {row.scale_set}" for row in upgrades),
    )


def is_needed(connection: Connection, digest: str) -> bool:
    """Does a version name the file, or does anything stand on it?"""
    named = connection.execute(
        select(image_version.c.digest).where(image_version.c.digest == digest)
    ).first()
    return named is not None or bool(find_users(connection, digest))


def parse_name(text: str) -> tuple[str, VersionNumber]:
    """Read `tiny/1.0.0`. Raises InvalidError."""
    definition, slash, version = text.partition("/")
    if not slash or not definition:
        raise InvalidError(
            f"image {text!r} is not NAME/VERSION", hint="write it like this: tiny/1.0.0"
        )
    return definition, VersionNumber.parse(version)


def _load_replicas(
    connection: Connection, definition: str | None
) -> dict[tuple[str, str], list[Replica]]:
    query = select(image_replica).order_by(image_replica.c.region)
    if definition is not None:
        query = query.where(image_replica.c.definition == definition)
    found: dict[tuple[str, str], list[Replica]] = {}
    for row in connection.execute(query):
        found.setdefault((row.definition, row.version), []).append(
            Replica(
                region=row.region,
                replicated_at=row.replicated_at,
                excluded_from_latest=row.excluded_from_latest,
            )
        )
    return found


def _tell(image: ImageVersion, region: str, now: datetime) -> str:
    reason = image.find_reason_against(region, now)
    return str(image.version) if reason is None else f"{image.version} ({reason})"
