"""`labctl image publish|exclude|replicate|retire`: what `latest` means, and where."""

from contextlib import closing
from datetime import UTC, datetime
from typing import Annotated

import typer

from labctl.cli.context import current_context, open_store
from labctl.cli.image import NameArgument, print_change
from labctl.errors import InvalidError

Regions = Annotated[
    list[str] | None,
    typer.Option("--region", metavar="REGION", help="A region by name; repeatable."),
]


def publish(name: NameArgument, regions: Regions = None) -> None:
    """Offer an image as `latest`: new scale sets take it, and upgrades from now on.

    With --region, it is replicated to these regions and may be used nowhere else.
    """
    from labctl.controller.clock import now
    from labctl.store.gallery import get_version, parse_name
    from labctl.store.offers import publish_version

    context = current_context()
    definition, version = parse_name(name)
    chosen = _check_regions(regions)
    with closing(open_store(context.settings)) as database, database.write() as connection:
        before = get_version(connection, definition, version, now=now())
        image = publish_version(connection, definition, version, now(), regions=chosen)
    verb = "was published already" if before == image else "is published"
    where = ", ".join(replica.region for replica in image.replicas)
    print_change(context, image, f"{image.name} {verb}" + (f" in {where}" if where else ""))


def exclude(name: NameArgument, regions: Regions = None) -> None:
    """Keep an image from being `latest`, everywhere or in some regions.

    `publish` offers it again; who names it by number still gets it.
    """
    from labctl.controller.clock import now
    from labctl.store.gallery import parse_name
    from labctl.store.offers import exclude_version

    context = current_context()
    definition, version = parse_name(name)
    chosen = _check_regions(regions)
    with closing(open_store(context.settings)) as database, database.write() as connection:
        image = exclude_version(connection, definition, version, regions=chosen, now=now())
    where = f" in {', '.join(chosen)}" if chosen else ""
    print_change(context, image, f"{image.name} is not offered as latest any more{where}")


def replicate(
    name: NameArgument,
    regions: Regions = None,
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="Every region, without a list.")
    ] = False,
) -> None:
    """Let an image be used in more regions; a version without a list may be used in all."""
    from labctl.controller.clock import now
    from labctl.store.gallery import parse_name
    from labctl.store.offers import replicate_everywhere, replicate_version

    context = current_context()
    definition, version = parse_name(name)
    chosen = _check_regions(regions)
    if bool(chosen) is everywhere:
        raise InvalidError("give either --region REGION or --everywhere")
    with closing(open_store(context.settings)) as database, database.write() as connection:
        if everywhere:
            image = replicate_everywhere(connection, definition, version, now=now())
        else:
            image = replicate_version(connection, definition, version, chosen, now=now())
    where = ", ".join(replica.region for replica in image.replicas) or "every region"
    print_change(context, image, f"{image.name} may be used in {where}")


def retire(
    name: NameArgument,
    at: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="For example 2027-01-31, or with a time, in UTC."),
    ] = None,
    never: Annotated[bool, typer.Option("--never", help="It has no end of life.")] = False,
) -> None:
    """Set the end of life of an image, by default now: from then on `latest` is another one."""
    from labctl.controller.clock import now
    from labctl.store.gallery import parse_name
    from labctl.store.offers import set_end_of_life

    context = current_context()
    definition, version = parse_name(name)
    if at is not None and never:
        raise InvalidError("give either --at DATE or --never")
    moment = None if never else now() if at is None else _parse_date(at)
    with closing(open_store(context.settings)) as database, database.write() as connection:
        image = set_end_of_life(connection, definition, version, moment, now=now())
    line = (
        "has no end of life" if moment is None else f"ends its life at {moment:%Y-%m-%d %H:%M} UTC"
    )
    print_change(context, image, f"{image.name} {line}")


def _parse_date(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidError(
            f"--at {text!r} is not a date", hint="write it like 2027-01-31 or 2027-01-31T12:00"
        ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _check_regions(regions: list[str] | None) -> list[str]:
    import re

    from labctl.model.machine import NAME_PATTERN

    for region in regions or []:
        if not re.fullmatch(NAME_PATTERN, region):
            raise InvalidError(
                f"region {region!r} is not a name",
                hint="use lower-case letters, digits and hyphens, for example lab-2",
            )
    return list(regions or [])
