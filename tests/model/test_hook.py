"""Hooks, programs and webhooks of a spec."""

import pytest
from pydantic import ValidationError

from labctl.model.control import ApprovalPolicy
from labctl.model.hook import Hook, HookKind, Hooks
from labctl.model.webhook import Webhook, find_webhook_fault, host_of, mask_url


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, "exactly one of 'command' and 'script'"),
        ({"command": ["true"], "script": "true"}, "exactly one of 'command' and 'script'"),
        ({"command": []}, "must name a program"),
        ({"command": [""]}, "absolute path"),
        ({"command": ["./drain"]}, "absolute path"),
        ({"command": ["drain", "a\0b"]}, "NUL"),
        ({"command": ["x"] * 300}, "at most 256"),
        ({"script": " \n"}, "must not be empty"),
        ({"script": "x" * (2**20 + 1)}, "at most 1048576"),
        ({"script": "true", "timeout": "0s"}, "timeout"),
        ({"script": "true", "timeout": "3h"}, "timeout"),
        ({"script": "true", "onFailure": "Ignore"}, "onFailure"),
    ],
)
def test_a_hook_is_one_program_or_one_script(fields, fault):
    with pytest.raises(ValidationError, match=fault):
        Hook.model_validate(fields)


def test_hooks_are_found_by_kind():
    hooks = Hooks(drain=Hook(command=("true",)))
    assert hooks.find(HookKind.DRAIN) == hooks.drain
    assert hooks.find(HookKind.UNDRAIN) is None


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("https://hooks.example/a?b=c", None),
        ("http://127.0.0.1:8080/", None),
        ("http://[::1]:8080/", None),
        ("http://hooks.example/", "only for loopback"),
        ("http://8.8.8.8/", "only for loopback"),
        ("ftp://hooks.example/", "must be a URL"),
        ("https:///path", "must be a URL"),
        ("https://host:0/", "must be a URL"),
        ("https://host:99999/", "is no URL"),
        ("https://me:hush@hooks.example/", "no user and password"),
        ("https://me:hush/ab@hooks.example/", "is no URL"),
        ("https://hooks.example./", None),
        ("https://hooks..example/", "between dots"),
        ("https://.hooks.example/", "between dots"),
        ("https://./", "between dots"),
        (f"https://{'a' * 63}.example/", None),
        (f"https://{'a' * 64}.example/", "between dots"),
        (f"https://{'a.' * 130}example/", "at most 253"),
        ("https://hooks.example/a b", "without blanks"),
        ("https://hooks.example/#x", "without '#'"),
    ],
)
def test_where_a_webhook_may_be(url, fault):
    found = find_webhook_fault(url, allow_http=True)
    assert found is None if fault is None else fault in (found or "")
    assert "hush" not in (found or "")


def test_plain_http_has_to_be_allowed():
    with pytest.raises(ValidationError, match="allowHttp"):
        Webhook(url="http://127.0.0.1/")


def test_a_host_is_shown_without_path_and_query():
    assert host_of("https://hooks.example/a?token=hush") == "hooks.example"
    assert host_of("http://[::1]:8080/") == "[::1]:8080"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hooks.example/", "https://hooks.example/"),
        ("https://hooks.example", "https://hooks.example"),
        ("https://hooks.example?hush", "https://hooks.example/********"),
        ("https://hooks.example:8443/hush", "https://hooks.example:8443/********"),
        ("https://[::1]:8443/a?token=hush", "https://[::1]:8443/********"),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(url, shown):
    webhook = Webhook(url=url)
    assert (mask_url(url), webhook.masked.url) == (shown, shown)
    assert "hush" not in repr(webhook)


def test_who_is_asked_for_an_approval():
    assert ApprovalPolicy().asked == "a person"
    assert ApprovalPolicy(command=("ask", "me")).asked == "the command 'ask'"
    webhook = Webhook(url="https://hooks.example/a")
    assert ApprovalPolicy(webhook=webhook).asked == "the webhook hooks.example"
    with pytest.raises(ValidationError, match="at most one"):
        ApprovalPolicy(command=("ask",), webhook=webhook)
    with pytest.raises(ValidationError, match="absolute path"):
        ApprovalPolicy(command=("./ask",))
