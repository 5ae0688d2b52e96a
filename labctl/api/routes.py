"""Every route of the API."""

from labctl.api.handlers import (
    galleries,
    gallery_images,
    gallery_versions,
    platform_images,
    resource_groups,
    subscriptions,
)
from labctl.api.route import Routes


def make_routes() -> Routes:
    """All of them; a list of each module in `handlers`."""
    return Routes(
        (
            *subscriptions.ROUTES,
            *resource_groups.ROUTES,
            *galleries.ROUTES,
            *gallery_images.ROUTES,
            *gallery_versions.ROUTES,
            *platform_images.ROUTES,
        )
    )
