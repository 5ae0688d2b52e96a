"""Every route of the API."""

from labctl.api.handlers import (
    absent,
    actions,
    compute_catalog,
    deployment_operations,
    galleries,
    gallery_images,
    gallery_versions,
    instance_views,
    instances,
    metadata,
    native,
    network,
    oauth,
    platform_images,
    resource_groups,
    resources,
    rolling_upgrades,
    scale_sets,
    set_extensions,
    subscriptions,
)
from labctl.api.handlers.deployments import make_deployment_routes
from labctl.api.handlers.operations import make_operation_routes
from labctl.api.openapi import with_document
from labctl.api.route import Routes


def make_routes() -> Routes:
    """All of them; a list of each module in `handlers`."""
    known = Routes(
        (
            *metadata.ROUTES,
            *oauth.ROUTES,
            *native.ROUTES,
            *subscriptions.ROUTES,
            *resource_groups.ROUTES,
            *galleries.ROUTES,
            *gallery_images.ROUTES,
            *gallery_versions.ROUTES,
            *platform_images.ROUTES,
            *resources.ROUTES,
            *network.ROUTES,
            *deployment_operations.ROUTES,
            *compute_catalog.ROUTES,
            *absent.ROUTES,
            *scale_sets.ROUTES,
            *set_extensions.ROUTES,
            *instances.ROUTES,
            *instance_views.ROUTES,
            *actions.ROUTES,
            *rolling_upgrades.ROUTES,
        )
    )
    # What an operation was for is answered by the route of its resource. Deployments call the
    # routes of their resources, of which some are deployments.
    every: list[Routes] = []
    deployments = make_deployment_routes(lambda: every[0])
    every.append(with_document((*known.all, *make_operation_routes(known), *deployments)))
    return every[0]
