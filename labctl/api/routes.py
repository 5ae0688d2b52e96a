"""Every route of the API."""

from labctl.api.handlers import network, resource_groups, subscriptions
from labctl.api.route import Routes


def make_routes() -> Routes:
    """All of them; a list of each module in `handlers`."""
    return Routes(
        (
            *subscriptions.ROUTES,
            *resource_groups.ROUTES,
            *network.ROUTES,
        )
    )
