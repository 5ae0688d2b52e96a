"""Where an extension may come from, and what its settings may hold."""

import pytest
from pydantic import ValidationError

from labctl.model.extension_rules import MASK, find_url_fault, walk_texts
from labctl.model.setup import Extension

SUM = "a" * 64


@pytest.mark.parametrize(
    ("url", "allow_http", "fault"),
    [
        ("https://files.example/x.sh", False, None),
        ("https://files.example:8443/x.sh?v=1", False, None),
        ("http://127.0.0.1:8000/x.sh", True, None),
        ("http://10.1.2.3/x.sh", True, None),
        ("http://[::1]/x.sh", True, None),
        ("http://localhost/x.sh", True, None),
        ("http://127.0.0.1/x.sh", False, "must be https"),
        ("http://files.example/x.sh", True, "only for loopback"),
        ("http://8.8.8.8/x.sh", True, "only for loopback"),
        ("ftp://files.example/x.sh", True, "must be a URL such as"),
        ("x.sh", True, "must be a URL such as"),
        ("https://files.example/a b", True, "without blanks"),
        ("https://files.example/a#b", True, "without '#'"),
        ("https://me:pw@files.example/a", True, "no user and password"),
        ("https://files.example/a?se=1&sig=s3cret", True, "holds a signature"),
        ("https://a..b/x", True, "between dots"),
        (f"https://{'a' * 64}.example/x", True, "between dots"),
        ("https://[files.example/a", True, "is no URL"),
        ("https://me:hush/ab@files.example/a", True, "is no URL: its host or its port is wrong"),
    ],
)
def test_urls(url, allow_http, fault):
    found = find_url_fault(url, allow_http=allow_http)
    assert found is None if fault is None else fault in (found or "")
    assert "s3cret" not in (found or "")


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"url": "https://a.example/x"}, "needs sha256"),
        ({"script": "x", "sha256": SUM}, "only for extensions with a url"),
        ({"script": "x", "allowHttp": True}, "only for extensions with a url"),
        ({"script": "x", "playbook": "y.yml"}, "exactly one of"),
        ({"script": "x", "settings": {"../x": 1}}, "letters, digits"),
        ({"script": "x", "settings": {"a": "x" * 70000}}, "at most 65536"),
        ({"script": "x", "protectedSettings": {"a/b": 1}}, "letters, digits"),
        ({"script": "x", "protectedSettings": {"token": MASK}}, "is the mask"),
        (
            {"script": "x", "protectedSettings": {"a": 1}, "protectedSettingsFile": "f"},
            "beside protectedSettings",
        ),
        (
            {"url": "https://a/x", "sha256": SUM, "protectedSettings": {"bearerToken": "s3cret\n"}},
            "one line of printable",
        ),
        (
            {"url": "https://a/x", "sha256": SUM, "protectedSettings": {"headers": ["s3cret"]}},
            "mapping of header names",
        ),
        (
            {
                "url": "https://a/x",
                "sha256": SUM,
                "protectedSettings": {"headers": {"X-Key": "s3cret\r\nX: y"}},
            },
            "one line of printable",
        ),
        (
            {"url": "https://a/x", "sha256": SUM, "protectedSettings": {"headers": {"X Y": "z"}}},
            "none of an HTTP header",
        ),
    ],
)
def test_faults_of_an_extension_never_repeat_a_secret(fields, fault):
    with pytest.raises(ValidationError) as caught:
        Extension.model_validate({"name": "a", **fields}, by_alias=True)
    assert fault in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_protected_settings_show_only_their_names_unless_the_store_asks():
    extension = Extension(name="a", script="x", protected_settings={"token": "s3cret"})
    assert "s3cret" not in repr(extension) + str(extension) + extension.model_dump_json()
    assert extension.model_dump()["protectedSettings"] == {"token": MASK}
    revealed = extension.model_dump_json(context={"reveal": True})
    assert Extension.model_validate_json(revealed) == extension


def test_every_scalar_is_walked_with_its_path():
    found = dict(walk_texts({"a": {"b": ["x", 12, True, None]}, "c": 1.5}, "top"))
    assert found == {"top.a.b[0]": "x", "top.a.b[1]": "12", "top.c": "1.5"}
