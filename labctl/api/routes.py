"""Every route of the API."""

from labctl.api.handlers import deployment_operations, network, resource_groups, subscriptions
from labctl.api.handlers.deployments import make_deployment_routes
from labctl.api.route import Routes


def make_routes() -> Routes:
    """All of them; a list of each module in `handlers`."""
    known: list[Routes] = []
    routes = Routes(
        (
            *subscriptions.ROUTES,
            *resource_groups.ROUTES,
            *network.ROUTES,
            *deployment_operations.ROUTES,
            *make_deployment_routes(lambda: known[0]),
        )
    )
    known.append(routes)
    return routes
