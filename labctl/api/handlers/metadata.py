"""What clients ask first: where to log in, and for whom the tokens are. For everybody."""

from labctl.api.call import Answer, Call
from labctl.api.desk import Desk
from labctl.api.jwt_token import AUDIENCE
from labctl.api.route import Route


def show_endpoints(desk: Desk, call: Call) -> Answer:  # noqa: ARG001
    """What `az cloud register --endpoint-resource-manager` fills a cloud from."""
    base = call.base_url
    # An authority of this shape is the one that clients take without asking Microsoft about it.
    authority = f"{base}/adfs"
    if call.api_version < "2018":
        body = {
            "galleryEndpoint": f"{base}/",
            "graphEndpoint": f"{base}/",
            "portalEndpoint": f"{base}/",
            "authentication": {"loginEndpoint": authority, "audiences": [AUDIENCE]},
        }
        return Answer(body=body)
    body = {
        "name": "lab",
        "portal": f"{base}/",
        "resourceManager": f"{base}/",
        "authentication": {
            "loginEndpoint": authority,
            "audiences": [AUDIENCE],
            "tenant": "adfs",
            "identityProvider": "ADFS",
        },
        "graph": f"{base}/",
        "graphAudience": AUDIENCE,
        "gallery": f"{base}/",
        "batch": AUDIENCE,
        "media": f"{base}/",
        "suffixes": {},
    }
    return Answer(body=body)


ROUTES = (
    Route(
        method="GET",
        path="/metadata/endpoints",
        handler=show_endpoints,
        scope=None,
        needs_version=False,
        summary="Where to log in; the shape is that of 2022-09-01, or of 2015-01-01",
        response={"type": "object"},
    ),
)
