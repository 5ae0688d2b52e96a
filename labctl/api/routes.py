"""Every route of the API."""

from labctl.api.handlers import commands, metadata, native, oauth
from labctl.api.openapi import with_document
from labctl.api.route import Routes


def make_routes() -> Routes:
    """All of them; a list of each module in `handlers`."""
    return with_document(
        (
            *metadata.ROUTES,
            *oauth.ROUTES,
            *native.ROUTES,
            *commands.ROUTES,
        )
    )
