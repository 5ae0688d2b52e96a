"""Faults of hooks, approvals and notifications, with their places in the text."""

import pytest

from labctl.cli.spec_file import parse_spec
from labctl.errors import InvalidError

HEAD = "name: web\ncapacity: 3\nimage: {definition: tiny}\n"  # three lines; tests begin in line 4


def parse(rest, base):
    return parse_spec(HEAD + rest, source="web.yaml", base=base)


@pytest.mark.parametrize(
    ("rest", "fault"),
    [
        (
            "upgradePolicy: {hooks: {drain: {command: [/nowhere/drain, now]}}}\n",
            "4:43: upgradePolicy.hooks.drain.command[0]: program '/nowhere/drain' is not there, or "
            "cannot be run",
        ),
        (
            "upgradePolicy: {hooks: {undrain: {command: [no-such-program]}}}\n",
            "4:45: upgradePolicy.hooks.undrain.command[0]: program 'no-such-program' is not there, "
            "or cannot be run",
        ),
        (
            "upgradePolicy: {approval: {command: [no-such-program]}}\n",
            "4:38: upgradePolicy.approval.command[0]: program 'no-such-program' is not there, or "
            "cannot be run",
        ),
        (
            "upgradePolicy: {hooks: {drain: {command: [true]}}}\n",
            '4:43: upgradePolicy.hooks.drain.command[0]: must be text; write it in quotes: "true"',
        ),
        (
            "notifications: [{name: a, url: 'http://127.0.0.1/'}]\n",
            "4:32: notifications[0].url: must be https; plain http needs allowHttp, and a loopback "
            "or private address",
        ),
        (
            "notifications: [{name: a, url: 'https://a/', secretFile: none}]\n",
            "4:58: notifications[0].secretFile: secret file",
        ),
        (
            "upgradePolicy: {approval: {webhook: {url: 'https://a/', secretFile: none}}}\n",
            "4:69: upgradePolicy.approval.webhook.secretFile: secret file",
        ),
        (
            "notifications: [{name: a, url: 'https://a/'}, {name: a, url: 'https://b/'}]\n",
            "4:54: notifications[1].name: name 'a' is taken by entry 1",
        ),
        (
            "notifications: [{name: a, url: 'https://a/', events: [reboots]}]\n",
            "4:55: notifications[0].events[0]: must be",
        ),
        (
            "notifications: [{name: a, url: 'https://a/', events: []}]\n",
            "4:54: notifications[0].events: must name at least one; 'all' is everything",
        ),
    ],
)
def test_a_fault_is_told_with_its_place(rest, fault, tmp_path):
    with pytest.raises(InvalidError) as caught:
        parse(rest, tmp_path)
    (line,) = caught.value.detail.splitlines()
    assert line.startswith(f"web.yaml:{fault}"), line


def test_a_script_that_cannot_begin_is_a_fault_of_the_spec(tmp_path):
    script = tmp_path / "drain"
    script.write_text("echo hi\n")
    script.chmod(0o700)
    with pytest.raises(InvalidError) as caught:
        parse(f"upgradePolicy: {{hooks: {{drain: {{command: [{script}]}}}}}}\n", tmp_path)
    assert caught.value.detail.startswith("web.yaml:4:43: upgradePolicy.hooks.drain.command[0]: ")
    assert "its first line must be '#!'" in caught.value.detail


def test_secret_files_are_named_by_their_whole_path_and_not_read_in(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("hush")
    secret.chmod(0o600)
    spec = parse(
        "notifications: [{name: a, url: 'https://a/', secretFile: secret}]\n"
        "upgradePolicy: {approval: {webhook: {url: 'https://a/', secretFile: secret}}}\n",
        tmp_path,
    )
    assert spec.notifications[0].secret_file == str(secret)
    assert spec.upgrade_policy.approval is not None
    assert spec.upgrade_policy.approval.webhook is not None
    assert spec.upgrade_policy.approval.webhook.secret_file == str(secret)
    assert "hush" not in spec.model_dump_json(context={"reveal": True})
