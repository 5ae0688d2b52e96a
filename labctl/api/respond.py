"""Answers that many calls give: pages, ETags, operations that take their time."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from labctl.api.call import Answer, Call
from labctl.api.desk import Desk
from labctl.arm.errors import ArmError, invalid
from labctl.store.operations import Operation

Json = Any  # what json.loads gives

PAGE_SIZE = 120  # instances; Azure's pages are of about this size
RETRY_AFTER = 1  # seconds


def dump(body: Json) -> bytes:
    """JSON as it goes over the wire."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def make_etag(document: Mapping[str, Json]) -> str:
    """Another one whenever the document is another one; its own `etag` does not count."""
    plain = {key: value for key, value in document.items() if key != "etag"}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def check_conditions(call: Call, etag: str | None) -> None:
    """If-Match and If-None-Match against the present ETag; None: there is no such resource yet.

    Ask in the transaction that writes. Raises ArmError (412 PreconditionFailed).
    """
    wanted, unwanted = call.headers.get("if-match"), call.headers.get("if-none-match")
    if wanted is not None and (etag is None or not _names(wanted, etag)):
        is_now = "there is no such resource" if etag is None else f"it is {etag} now"
        raise ArmError(
            412,
            "PreconditionFailed",
            f"The condition If-Match: {wanted} was not met: {is_now}.",
        )
    if unwanted is not None and etag is not None and _names(unwanted, etag):
        raise ArmError(
            412,
            "PreconditionFailed",
            f"The condition If-None-Match: {unwanted} was not met: the resource exists as {etag}.",
        )


def _names(header: str, etag: str) -> bool:
    given = {each.strip().removeprefix("W/") for each in header.split(",")}
    return "*" in given or etag in given or etag.strip('"') in given


def make_link(call: Call, path: str, query: Mapping[str, str]) -> str:
    """A whole URL on the host that the client used."""
    return f"{call.base_url}{quote(path, safe='/-._~():@')}?{urlencode(query, safe='$,')}"


def answer_page(
    call: Call,
    items: Sequence[Json],
    *,
    render: Callable[[Json], Json] | None = None,
    size: int = PAGE_SIZE,
) -> Answer:
    """One page of a list with a link to the next; `render` is called for what is on the page.

    `$skiptoken` is the place of the first item. Raises ArmError for one that is none.
    """
    token = call.query.get("$skiptoken", "0")
    if not token.isascii() or not token.isdigit() or len(token) > 9:
        raise invalid(f"$skiptoken '{token}' is not one that a nextLink had.", target="$skiptoken")
    begin = int(token)
    page = items[begin : begin + size]
    body: Json = {"value": [each if render is None else render(each) for each in page]}
    if begin + size < len(items):
        rest = {key: value for key, value in call.query.items() if key != "$skiptoken"}
        query = {**rest, "$skiptoken": str(begin + size)}
        body["nextLink"] = make_link(call, call.path, query)
    return Answer(body=body)


def accept(
    desk: Desk,
    call: Call,
    operation: Operation,
    *,
    status: int = 202,
    body: Json | None = None,
    location: str = "lab",
    namespace: str = "Microsoft.Compute",
) -> Answer:
    """Say that something has begun, and where to ask how it goes.

    For PUT and PATCH: 201 or 200 with the resource; for POST and DELETE: 202 without a body.
    """
    path = (
        f"/subscriptions/{desk.subscription_id}/providers/{namespace}/locations/{location}"
        f"/operations/{operation.id}"
    )
    version = call.api_version
    headers = {
        "Azure-AsyncOperation": make_link(call, path, {"api-version": version}),
        "Location": make_link(call, path, {"monitor": "true", "api-version": version}),
        "Retry-After": str(RETRY_AFTER),
    }
    return Answer(status=status, body=body, headers=headers)
