"""Every route of the API."""

from labctl.api.handlers import (
    absent,
    compute_catalog,
    network,
    resource_groups,
    resources,
    subscriptions,
)
from labctl.api.route import Routes


def make_routes() -> Routes:
    """All of them; a list of each module in `handlers`."""
    return Routes(
        (
            *subscriptions.ROUTES,
            *resource_groups.ROUTES,
            *resources.ROUTES,
            *network.ROUTES,
            *compute_catalog.ROUTES,
            *absent.ROUTES,
        )
    )
