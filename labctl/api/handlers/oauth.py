"""A login that is good enough for Azure's clients: OAuth2 client credentials. For everybody."""

import hmac
from collections.abc import Mapping
from urllib.parse import parse_qsl

from labctl.api.call import Answer, Call
from labctl.api.desk import Desk
from labctl.api.jwt_token import issue_jwt
from labctl.api.route import Handler, Route
from labctl.arm.errors import invalid
from labctl.store.tokens import AccessToken, find_token

_FORM_BYTES = 16 * 1024
_FORM_FIELDS = 40
_EVERYBODY = frozenset({"common", "organizations"})  # tenants that stand for any
_FORM = "application/x-www-form-urlencoded"
_NO_STORE = {"Pragma": "no-cache"}


class _RefusedLoginError(Exception):
    """An error of OAuth2 (RFC 6749, 5.2)."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status, self.code, self.text = status, code, text


def give_token(desk: Desk, call: Call) -> Answer:
    """A JWT for the client id and the secret of a token."""
    try:
        client = _check_client(desk, call, _read_form(call))
    except _RefusedLoginError as refusal:
        error = {"error": refusal.code, "error_description": f"labctl: {refusal.text}"}
        headers = _NO_STORE | (
            {"WWW-Authenticate": 'Basic realm="labctl"'} if refusal.status == 401 else {}
        )
        return Answer(status=refusal.status, body=error, headers=headers, code=refusal.code)
    signed, seconds = issue_jwt(desk, client, now=call.now)
    body: dict[str, object] = {
        "token_type": "Bearer",
        "expires_in": seconds,
        "ext_expires_in": seconds,
        "access_token": signed,
    }
    return Answer(body=body, headers=_NO_STORE, who=client.name)


def show_adfs(desk: Desk, call: Call) -> Answer:  # noqa: ARG001
    """Where the authority of the shape of ADFS answers."""
    return Answer(body=_describe(f"{call.base_url}/adfs", f"{call.base_url}/adfs/oauth2"))


def show_tenant(desk: Desk, call: Call) -> Answer:
    """Where the authority of the shape of Azure AD answers."""
    tenant = desk.tenant_id
    asked = call.parameters["tenant"]
    if asked.lower() not in {tenant, *_EVERYBODY}:
        raise invalid(
            f"The tenant {asked[:60]!r} is not that of this lab, {tenant}.",
            code="InvalidTenant",
            target="tenant",
        )
    base = f"{call.base_url}/{tenant}"
    return Answer(body=_describe(f"{base}/v2.0", f"{base}/oauth2/v2.0"))


def show_instances(desk: Desk, call: Call) -> Answer:
    """Which authorities there are: this one, whatever is asked for."""
    where = f"{call.base_url}/{desk.tenant_id}/v2.0/.well-known/openid-configuration"
    host = call.base_url.partition("://")[2]
    body = {
        "tenant_discovery_endpoint": where,
        "api-version": "1.1",
        "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
    }
    return Answer(body=body)


def _check_client(desk: Desk, call: Call, form: Mapping[str, str]) -> AccessToken:
    if form.get("grant_type") != "client_credentials":
        raise _RefusedLoginError(
            400,
            "unsupported_grant_type",
            "Only client_credentials is known here: log in with --service-principal, the client id "
            "of a token as user name and the token as password.",
        )
    identifier, secret = form.get("client_id", ""), form.get("client_secret", "")
    with desk.database.read() as connection:
        token = find_token(connection, secret, now=call.now)
    # The same answer for whatever is wrong: who guesses learns nothing of the other half.
    is_fit = token is not None and hmac.compare_digest(
        token.id.encode(), identifier.strip().lower().encode("utf-8", "surrogatepass")
    )
    if token is None or not is_fit:
        raise _RefusedLoginError(
            401,
            "invalid_client",
            "The client id or the secret is wrong, or the token has expired or was revoked; "
            "see: labctl token list",
        )
    return token


def _read_form(call: Call) -> Mapping[str, str]:
    kind = call.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _FORM:
        raise _RefusedLoginError(400, "invalid_request", f"The body must be a form ({_FORM}).")
    try:
        pairs = parse_qsl(
            call.content.decode("ascii"),
            keep_blank_values=True,
            max_num_fields=_FORM_FIELDS,
            errors="strict",
        )
    except ValueError as error:
        raise _RefusedLoginError(
            400, "invalid_request", f"The form cannot be read: {error}"
        ) from error
    form = dict(pairs)
    if len(form) != len(pairs):
        raise _RefusedLoginError(400, "invalid_request", "A field of the form is there twice.")
    return form


def _describe(issuer: str, oauth: str) -> dict[str, object]:
    return {
        "issuer": issuer,
        "token_endpoint": f"{oauth}/token",
        "authorization_endpoint": f"{oauth}/authorize",
        "jwks_uri": f"{oauth}/keys",
        "token_endpoint_auth_methods_supported": ["client_secret_post"],
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": ["token"],
        "response_modes_supported": ["form_post"],
        "subject_types_supported": ["pairwise"],
        "scopes_supported": ["openid"],
        "id_token_signing_alg_values_supported": ["HS256"],
    }


def _open(method: str, path: str, handler: Handler, summary: str) -> Route:
    is_login = method == "POST"
    return Route(
        method=method,
        path=path,
        handler=handler,
        scope=None,
        needs_version=False,
        summary=summary,
        limit=_FORM_BYTES,
        is_form=is_login,
        request={
            "type": "object",
            "required": ["grant_type", "client_id", "client_secret"],
            "properties": {
                "grant_type": {"type": "string", "enum": ["client_credentials"]},
                "client_id": {"type": "string"},
                "client_secret": {"type": "string"},
                "scope": {"type": "string"},
                "resource": {"type": "string"},
            },
        }
        if is_login
        else None,
        response={"type": "object"},
    )


_LOGIN = "Log in with the client id and the secret of a token"
_CONFIGURATION = "OpenID configuration"

ROUTES = (
    _open("GET", "/adfs/.well-known/openid-configuration", show_adfs, _CONFIGURATION),
    _open("POST", "/adfs/oauth2/token", give_token, _LOGIN),
    # Clients that take "adfs" for a tenant look here before they look above.
    _open("GET", "/adfs/adfs/.well-known/openid-configuration", show_adfs, _CONFIGURATION),
    _open("GET", "/adfs/adfs/v2.0/.well-known/openid-configuration", show_adfs, _CONFIGURATION),
    _open("POST", "/adfs/adfs/oauth2/token", give_token, _LOGIN),
    _open("POST", "/adfs/adfs/oauth2/v2.0/token", give_token, _LOGIN),
    _open("GET", "/common/discovery/instance", show_instances, "Authorities that there are"),
    _open("GET", "/{tenant}/.well-known/openid-configuration", show_tenant, _CONFIGURATION),
    _open("GET", "/{tenant}/v2.0/.well-known/openid-configuration", show_tenant, _CONFIGURATION),
    _open("POST", "/{tenant}/oauth2/token", give_token, _LOGIN),
    _open("POST", "/{tenant}/oauth2/v2.0/token", give_token, _LOGIN),
)
