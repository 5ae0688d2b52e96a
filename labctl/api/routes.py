"""Every route of the API."""

from labctl.api.route import Routes


def make_routes() -> Routes:
    """All of them; a list of each module in `handlers`."""
    return Routes(())
