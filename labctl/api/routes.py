"""Every route of the API."""

from labctl.api.handlers import (
    absent,
    compute_catalog,
    metadata,
    native,
    network,
    oauth,
    resource_groups,
    resources,
    subscriptions,
)
from labctl.api.openapi import with_document
from labctl.api.route import Routes


def make_routes() -> Routes:
    """All of them; a list of each module in `handlers`."""
    return with_document(
        (
            *metadata.ROUTES,
            *oauth.ROUTES,
            *native.ROUTES,
            *subscriptions.ROUTES,
            *resource_groups.ROUTES,
            *resources.ROUTES,
            *network.ROUTES,
            *compute_catalog.ROUTES,
            *absent.ROUTES,
        )
    )
