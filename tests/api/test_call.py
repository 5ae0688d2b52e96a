import json
import re

import requests

from labctl.model.access import Scope
from tests.api.serving import VERSION, Api

BAD = {
    "": "no body",
    "{": "not JSON",
    "[]": "must be a JSON object, not list",
    '{"a": NaN}': "not JSON",
    '{"a": 1e999}': "too large",
    '{"a": ' + "[" * 101 + "]" * 101 + "}": "deeper than 100 levels",
    '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}": "JSON|levels",
    '{"a": "\\ud800"}': "half a character",
    '{"a": ' + "9" * 5000 + "}": "not JSON",
}


def test_a_body_that_cannot_be_kept_is_refused(api: Api):
    for body, told in BAD.items():
        answer = requests.put(
            f"{api.url}/subscriptions/{api.desk.subscription_id}/resourceGroups/rg1",
            data=body.encode(),
            headers={"Authorization": f"Bearer {api.secrets[Scope.OPERATE]}"},
            params={"api-version": VERSION},
            timeout=30,
        )
        error = json.loads(answer.text)["error"]
        assert (answer.status_code, error["code"]) == (400, "InvalidRequestContent")
        assert re.search(told, error["message"])
    assert api.ask("HEAD", "resourceGroups/rg1").status_code == 404
