"""`labctl image follow|unfollow|followed`: newer versions of publishers without a command."""

from contextlib import closing
from datetime import timedelta
from typing import Annotated, Any

import typer

from labctl.cli.context import current_context, open_store
from labctl.cli.output import Output, format_moment, format_span, print_document, print_rows
from labctl.cli.publisher import (
    ArchitectureOption,
    OfferArgument,
    PublisherArgument,
    SkuArgument,
    require_name,
    tell_stale,
)
from labctl.errors import InvalidError, NotFoundError, RefusedError
from labctl.model.following import LONGEST, SHORTEST, Follow, Wish
from labctl.model.image import ImageVersion
from labctl.model.publisher import Architecture

_COLUMNS = ("definition", "follows", "newest", "every", "publish", "checkedAt", "nextAt", "trouble")


def follow(
    publisher: PublisherArgument,
    offer: OfferArgument,
    sku: SkuArgument,
    definition: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The image definition; default: as `image skus` tells."),
    ] = None,
    architecture: ArchitectureOption = Architecture.X86_64,
    publish: Annotated[
        bool,
        typer.Option("--publish/--no-publish", help="Offer it as `latest` at once; default: do."),
    ] = True,
    every: Annotated[
        str, typer.Option(metavar="DURATION", help="How often to ask the publisher.")
    ] = "6h",
    require_signature: Annotated[
        bool,
        typer.Option("--require-signature", help="Refuse what cannot be verified with a key ring."),
    ] = False,
) -> None:
    """Let `labctl serve` pull each newer version of a SKU. Run again, it changes how."""
    from labctl.controller.clock import now
    from labctl.controller.published import opened, propose_definition
    from labctl.store.follows import find_follow, save_follow

    context = current_context()
    require_name(definition)
    interval = _parse_every(every)
    with opened(context.settings, publisher, now=now()) as source:
        found = source.adapter.get_sku(source.index, offer, sku)
        tell_stale(source)
    wish = Wish(
        definition=definition or propose_definition(found, architecture),
        publisher=publisher,
        offer=offer,
        sku=sku,
        architecture=architecture,
        publish=publish,
        require_signature=require_signature,
        every=interval,
    )
    with closing(open_store(context.settings)) as database, database.write() as connection:
        known = find_follow(connection, wish.definition)
        if known is not None and _what(known.wish) != _what(wish):
            raise RefusedError(
                f"image definition {wish.definition!r} follows {_what(known.wish)}",
                hint=f"run: labctl image unfollow {wish.definition}, or name another --definition",
            )
        # What was taken and deleted again stays away, whatever else changes.
        seen = known.seen if known is not None else None
        saved = known if known and known.wish == wish else Follow(wish=wish, seen=seen)
        save_follow(connection, saved)
    if context.output is not Output.TABLE:
        print_document(_row(saved, None), context.output)
        return
    print(f"{wish.definition} follows {_what(wish)}, every {format_span(interval)}")
    print("`labctl serve` pulls what is newer; see: labctl image followed")


def unfollow(
    definition: Annotated[str, typer.Argument(metavar="DEFINITION", help="The image definition.")],
) -> None:
    """Pull no newer versions any more. What was pulled stays."""
    from labctl.store.follows import load_follows, remove_follow

    context = current_context()
    with closing(open_store(context.settings)) as database, database.write() as connection:
        if not remove_follow(connection, definition):
            names = ", ".join(each.definition for each in load_follows(connection))
            raise NotFoundError(
                f"image definition {definition!r} follows no publisher",
                detail=f"these do: {names}" if names else "none does",
                hint="run: labctl image followed",
            )
    if context.output is not Output.TABLE:
        print_document({"definition": definition, "follows": None}, context.output)
        return
    print(f"{definition} follows nothing any more; its versions stay")


def followed() -> None:
    """List the definitions that follow a publisher, and how the last look ended."""
    from labctl.store.follows import load_follows
    from labctl.store.gallery import load_versions

    context = current_context()
    with closing(open_store(context.settings)) as database, database.read() as connection:
        rows = [
            _row(each, max(versions, key=lambda v: v.version) if versions else None)
            for each in load_follows(connection)
            for versions in [load_versions(connection, each.definition)]
        ]
    if context.output is Output.TABLE:
        for row in rows:
            row["checkedAt"] = format_moment(row["checkedAt"]) if row["checkedAt"] else "never"
            row["nextAt"] = format_moment(row["nextAt"]) if row["nextAt"] else "at once"
    print_rows(rows, _COLUMNS, context.output, empty="no definition follows a publisher")


def _row(follow: Follow, newest: ImageVersion | None) -> dict[str, Any]:
    wish = follow.wish
    return {
        "definition": wish.definition,
        "follows": _what(wish),
        "publisher": wish.publisher,
        "offer": wish.offer,
        "sku": wish.sku,
        "architecture": wish.architecture,
        "newest": None if newest is None else newest.version,
        "every": wish.every,
        "publish": wish.publish,
        "requireSignature": wish.require_signature,
        "checkedAt": follow.checked_at,
        "nextAt": follow.next_at,
        "trouble": follow.trouble or None,
        "failures": follow.failures,
    }


def _what(wish: Wish) -> str:
    words = f"{wish.publisher} {wish.offer} {wish.sku}"
    return words if wish.architecture is Architecture.X86_64 else f"{words} {wish.architecture}"


def _parse_every(text: str) -> timedelta:
    from labctl.model.quantity import parse_duration

    try:
        found = parse_duration(text)
    except ValueError as error:
        raise InvalidError(f"--every {text!r} {error}") from error
    if not SHORTEST <= found <= LONGEST:
        raise InvalidError(
            f"--every {text!r} is not between 1 minute and 30 days", hint="for example --every 6h"
        )
    return found
