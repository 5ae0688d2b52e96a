"""What `latest` may mean: publishing, regions, exclusion, end of life."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Table, delete, insert, update

from labctl.errors import RefusedError
from labctl.model.image import ImageVersion, Replica, VersionNumber
from labctl.store.gallery import get_version
from labctl.store.schema import image_replica, image_version


def publish_version(
    connection: Connection,
    definition: str,
    version: VersionNumber,
    published_at: datetime,
    *,
    regions: Sequence[str] = (),
) -> ImageVersion:
    """Offer a version as `latest`; the moment of the first publishing stays.

    `regions` are added to those that it may be used in, and offered there again if they were
    excluded; without them nothing about regions changes. Raises NotFoundError.
    """
    image = get_version(connection, definition, version, now=published_at)
    _save_offer(
        connection,
        replace(image, published_at=image.published_at or published_at, excluded_from_latest=False),
    )
    return replicate_version(connection, definition, version, regions, now=published_at)


def replicate_version(
    connection: Connection,
    definition: str,
    version: VersionNumber,
    regions: Sequence[str],
    *,
    now: datetime,
) -> ImageVersion:
    """Let a version be used in `regions`, beside those where it may be already.

    Raises NotFoundError.
    """
    image = get_version(connection, definition, version, now=now)
    known = {replica.region for replica in image.replicas}
    for region in dict.fromkeys(regions):
        if region not in known:
            _add_replica(connection, image, Replica(region=region, replicated_at=now))
        else:
            _exclude_replica(connection, image, region, is_excluded=False)
    return get_version(connection, definition, version, now=now)


def replicate_everywhere(
    connection: Connection, definition: str, version: VersionNumber, *, now: datetime
) -> ImageVersion:
    """Let a version be used in every region. Raises NotFoundError."""
    image = get_version(connection, definition, version, now=now)
    connection.execute(delete(image_replica).where(*_key(image_replica, image)))
    return replace(image, replicas=())


def set_regions(
    connection: Connection,
    definition: str,
    version: VersionNumber,
    regions: Mapping[str, bool],
    *,
    now: datetime,
) -> ImageVersion:
    """Let a version be used in exactly these regions; none: in every region. True: not as `latest`.

    Where it was before, it stays as long as it was. Raises NotFoundError.
    """
    image = get_version(connection, definition, version, now=now)
    for replica in image.replicas:
        if replica.region not in regions:
            table = image_replica
            connection.execute(
                delete(table).where(*_key(table, image), table.c.region == replica.region)
            )
    replicate_version(connection, definition, version, tuple(regions), now=now)
    for region, is_excluded in regions.items():
        _exclude_replica(connection, image, region, is_excluded=is_excluded)
    return get_version(connection, definition, version, now=now)


def exclude_version(
    connection: Connection,
    definition: str,
    version: VersionNumber,
    *,
    regions: Sequence[str] = (),
    now: datetime,
) -> ImageVersion:
    """Keep a version from being `latest`, everywhere or in some of its regions.

    Those who name it by number still get it. Raises NotFoundError, and RefusedError for a region
    that the version is not replicated to.
    """
    image = get_version(connection, definition, version, now=now)
    known = [replica.region for replica in image.replicas]
    for region in regions:
        if region not in known:
            where = ", ".join(known) if known else "all regions, without a list of them"
            raise RefusedError(
                f"image {image.name} is not replicated to region {region!r} by name",
                detail=f"it may be used in: {where}",
                hint=f"name its regions first: labctl image replicate {image.name} --region REGION",
            )
        _exclude_replica(connection, image, region, is_excluded=True)
    if not regions:
        _save_offer(connection, replace(image, excluded_from_latest=True))
    return get_version(connection, definition, version, now=now)


def set_end_of_life(
    connection: Connection,
    definition: str,
    version: VersionNumber,
    end_of_life: datetime | None,
    *,
    now: datetime,
) -> ImageVersion:
    """From `end_of_life` on, `latest` means another version; None: never. Raises NotFoundError."""
    image = get_version(connection, definition, version, now=now)
    connection.execute(
        update(image_version).where(*_key(image_version, image)).values(end_of_life=end_of_life)
    )
    return replace(image, end_of_life=end_of_life)


def _save_offer(connection: Connection, image: ImageVersion) -> None:
    connection.execute(
        update(image_version)
        .where(*_key(image_version, image))
        .values(published_at=image.published_at, excluded_from_latest=image.excluded_from_latest)
    )


def _key(table: Table, image: ImageVersion) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return table.c.definition == image.definition, table.c.version == str(image.version)


def _add_replica(connection: Connection, image: ImageVersion, replica: Replica) -> None:
    connection.execute(
        insert(image_replica).values(
            definition=image.definition,
            version=str(image.version),
            region=replica.region,
            replicated_at=replica.replicated_at,
            excluded_from_latest=replica.excluded_from_latest,
        )
    )


def _exclude_replica(
    connection: Connection, image: ImageVersion, region: str, *, is_excluded: bool
) -> None:
    connection.execute(
        update(image_replica)
        .where(*_key(image_replica, image), image_replica.c.region == region)
        .values(excluded_from_latest=is_excluded)
    )
