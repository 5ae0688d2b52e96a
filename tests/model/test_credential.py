"""Credentials that tell when they end."""

import base64
import json
from datetime import UTC, datetime

import pytest

from labctl.model.credential import find_expiry

MOMENT = datetime(2026, 11, 23, 5, 0, tzinfo=UTC)


def make_token(claims):
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
    words = [base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts]
    return ".".join([*words, "c2ln"])


@pytest.mark.parametrize(
    "text",
    [
        "se=2026-11-23T05%3A00%3A00Z&sp=r&sig=abc",
        "?sv=1&se=2026-11-23T05:00Z&sig=abc",
        "https://files.example/x.sh?se=2026-11-23T05%3A00Z&sig=abc",
        "X-Amz-Date=20261123T040000Z&X-Amz-Expires=3600&X-Amz-Signature=abc",
        make_token({"exp": MOMENT.timestamp()}),
        f"Bearer {make_token({'exp': int(MOMENT.timestamp())})}\n",
    ],
)
def test_signed_urls_and_tokens_tell_when_they_end(text):
    assert find_expiry(text) == MOMENT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s3cret",
        "se=2026-11-23T05:00Z",  # not signed, so it may mean anything
        "se=tomorrow&sig=abc",
        "X-Amz-Date=never&X-Amz-Expires=3600&X-Amz-Signature=abc",
        "1.2.3",
        "files.example.org",
        make_token({"exp": "soon"}),
        make_token({"exp": 1e300}),
        make_token({"sub": "me"}),
        make_token([1]),
    ],
)
def test_other_texts_tell_nothing(text):
    assert find_expiry(text) is None
