"""The commands for tokens of the API."""

import re
from typing import Annotated

import typer

from labctl.cli.context import current_context
from labctl.cli.output import Output, print_document, print_rows
from labctl.errors import InvalidError
from labctl.model.access import Scope

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose token it is, for the audit log.")]


def create(
    name: Name,
    scope: Annotated[
        Scope,
        typer.Option(help="read: look; operate: make, change, delete; admin: the host, too."),
    ],
    expires: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Good for this long, like 90d; default: for ever."),
    ] = None,
) -> None:
    """Make a token. Its secret is shown this once; only a hash is kept.

    Programs send it as `Authorization: Bearer`; `az login --service-principal` takes the client id
    and the secret.
    """
    from labctl.cli.follow import opened_store
    from labctl.cli.serve_api import make_secret
    from labctl.controller.clock import now
    from labctl.model.quantity import parse_duration
    from labctl.store.tokens import add_token

    context = current_context()
    if not _NAME.fullmatch(name):
        raise InvalidError(
            f"{name!r} is no name for a token",
            hint="use 1 to 63 letters, digits and . _ @ -, a letter or digit first",
        )
    expires_at, moment = None, now()
    if expires is not None:
        try:
            expires_at = moment + parse_duration(expires)
        except (ValueError, OverflowError) as error:
            raise InvalidError(f"--expires {expires!r} {error}") from error
        if expires_at <= moment:
            raise InvalidError(f"--expires {expires!r} is over at once", hint="for example 90d")
    secret = make_secret()
    with opened_store(context) as database, database.write() as connection:
        token = add_token(
            connection, name=name, scope=scope, secret=secret, expires_at=expires_at, now=moment
        )
    document = {
        "name": token.name,
        "scope": token.scope,
        "clientId": token.id,
        "token": secret,
        "expiresAt": token.expires_at,
    }
    print_document(document, context.output)


def list_() -> None:
    """List the tokens, the revoked and expired ones, too; their secrets are not kept."""
    from labctl.cli.follow import opened_store
    from labctl.controller.clock import now
    from labctl.store.tokens import load_tokens

    context = current_context()
    with opened_store(context) as database, database.read() as connection:
        tokens = load_tokens(connection)
    moment = now()
    rows = [
        {
            "name": token.name,
            "scope": token.scope,
            "clientId": token.id,
            "state": "good"
            if token.is_good(moment)
            else ("expired" if token.revoked_at is None else "revoked"),
            "createdAt": token.created_at,
            "expiresAt": token.expires_at,
            "revokedAt": token.revoked_at,
            "lastUsedAt": token.last_used_at,
        }
        for token in tokens
    ]
    columns = ["name", "scope", "state", "expiresAt", "lastUsedAt", "clientId"]
    print_rows(rows, columns, context.output, empty="no tokens; run: labctl token create NAME")


def revoke(name: Name) -> None:
    """Let a token be good for nothing, at once; what it asked for before goes on."""
    from labctl.cli.follow import opened_store
    from labctl.controller.clock import now
    from labctl.store.tokens import revoke_token

    context = current_context()
    with opened_store(context) as database, database.write() as connection:
        token = revoke_token(connection, name, now=now())
    if context.output is Output.TABLE:
        print(f"{name}: revoked")
    else:
        print_document(
            {"name": token.name, "clientId": token.id, "state": "revoked"}, context.output
        )
