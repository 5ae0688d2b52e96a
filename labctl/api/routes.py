"""Every route of the API."""

from labctl.api.handlers import metadata, oauth
from labctl.api.route import Routes


def make_routes() -> Routes:
    """All of them; a list of each module in `handlers`."""
    return Routes(
        (
            *metadata.ROUTES,
            *oauth.ROUTES,
        )
    )
