"""Hooks around stops, an approval by webhook, and what receivers are told, on real VMs."""

import hashlib
import hmac
import json
import re
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.e2e.harness import HEALTH, wait_for

DATA = [{"name": "data", "size": "32MiB", "fileSystem": "ext4", "mountPoint": "/data"}]
SECRET = b"between us"
DRAIN = """#!/bin/sh
cd "$LABCTL_SETTINGS_DIR/settings"
version=$(sed -n 's/^IMAGE_VERSION=//p' /etc/labctl-image)
echo "begin $(cat hook) $(cat instance) $(cat imageVersion) $version" >>/data/hooks
cat /proc/sys/kernel/random/boot_id >/data/drained-boot
sync
while [ -e /data/hold ]; do sleep 0.2; done
echo "end" >>/data/hooks
sync
echo "said goodbye"
"""
UNDRAIN = """#!/bin/sh
env | sort | tr '\\n' ' ' >>{log}
echo >>{log}
"""


class Answers:
    """A server of the user's: /approve is asked, /notify is told."""

    def __init__(self):
        self.approvals, self.told, self.asked = [], [], []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = outer.answer(self.path, self.headers, body)
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, path, headers, body):
        expected = "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()
        assert headers["Labctl-Signature"] == expected
        if path == "/notify":
            self.told.append(json.loads(body))
            return 204, {}
        self.asked.append(json.loads(body))
        return self.approvals.pop(0) if self.approvals else (200, {"decision": "Approve"})


@pytest.fixture(scope="module")
def answers():
    made = Answers()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope="module")
def hooked(lab, answers):
    """Writes the spec of the set with another drain; the first apply makes two instances."""
    secret, undrain = lab.specs / "secret", lab.specs / "undrain"
    secret.write_bytes(SECRET)
    secret.chmod(0o600)
    undrain.write_text(UNDRAIN.format(log=lab.specs / "undrained"))
    undrain.chmod(0o700)

    def write(drain, capacity=2):
        webhook = {"url": f"{answers.url}/approve", "allowHttp": True, "secretFile": "secret"}
        policy = {
            "healthTimeout": "30s",
            "approval": {"webhook": webhook},
            "hooks": {"drain": drain, "undrain": {"command": [str(undrain)]}},
        }
        events = ["upgrade", "batch", "approval", "hook"]
        receiver = {**webhook, "name": "nightly", "url": f"{answers.url}/notify", "events": events}
        lab.apply(
            "hooked",
            capacity=capacity,
            dataDisks=DATA,
            health=HEALTH,
            upgradePolicy=policy,
            notifications=[receiver],
        )

    write({"script": DRAIN})
    yield write
    lab.remove("hooked")


def boot_id(lab, name):
    return lab.ask(name, "cat /proc/sys/kernel/random/boot_id")


def story(lab, name):
    return [row["message"] for row in lab.json("events", "hooked") if row["instance"] == name]


def test_instances_are_drained_before_their_stop_and_undrained_once_healthy(lab, hooked, answers):
    answers.approvals[:] = [(202, {})]
    old = {name: boot_id(lab, name) for name in ("hooked_0", "hooked_1")}
    plan = lab.json("upgrade", "plan", "hooked", "--version", "1.1.0")["batches"]
    assert [(b["drains"], b["undrains"]) for b in plan] == [
        (["hooked_0"],) * 2,
        (["hooked_1"],) * 2,
    ]
    assert plan[0]["approvedBy"] == f"the webhook {answers.url.partition('//')[2]}"
    lab.run("upgrade", "start", "hooked", "--version", "1.1.0")
    assert lab.versions("hooked") == ["1.1.0", "1.1.0"]
    # The approval: asked, put off, asked again, given; who gave it is on record.
    assert [asked["instances"] for asked in answers.asked] == [["hooked_0"]] * 2
    given = [row["message"] for row in lab.json("events", "hooked") if "approved" in row["message"]]
    upgrade = lab.json("upgrade", "status", "hooked")["id"]
    assert given == [f"batch 1 of upgrade {upgrade} approved by {plan[0]['approvedBy']}"]
    for name, before in old.items():
        # The script saw the boot and the image of before, and wrote it where the new disk reads it.
        assert lab.ask(name, "cat /data/drained-boot") == before != boot_id(lab, name)
        assert lab.ask(name, "cat /data/hooks") == f"begin drain {name} 1.0.0 1.0.0\nend"
        steps = " | ".join(story(lab, name))
        order = (
            "OS disk 2 prepared.*drain succeeded.*stopped .*powered on with image 1.1.0"
            ".* healthy: .*undrain succeeded.*healthy on 1.1.0"
        )
        assert re.search(order, steps), steps
    lines = (lab.specs / "undrained").read_text().splitlines()
    variables = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
    assert [v["LABCTL_INSTANCE"] for v in variables] == ["hooked_0", "hooked_1"]
    row = lab.instances("hooked")["hooked_0"]
    told = (variables[0]["LABCTL_ADDRESS"], variables[0]["LABCTL_SSH_PORT"])
    assert ":".join(told) == row["ssh"]
    assert (variables[0]["LABCTL_HOOK"], variables[0]["LABCTL_IMAGE_VERSION"]) == (
        "undrain",
        "1.1.0",
    )
    assert "LABCTL_STATE_DIR" not in variables[0]
    shown = lab.json("upgrade", "show", upgrade)["hooks"]
    assert [(run["instance"], run["hook"]) for run in shown] == [
        (name, hook) for name in old for hook in ("drain", "undrain")
    ]
    assert shown[0]["output"] == "said goodbye\n"
    # What the receiver was told: everything that it asked for, in order, each once.
    swap = ["batch.started", "hook.succeeded", "hook.succeeded", "batch.ended"]
    expected = ["upgrade.started", "approval.asked", "approval.answered", *swap, *swap]
    assert [event["type"] for event in answers.told] == [
        f"labctl.{topic}" for topic in (*expected, "upgrade.ended")
    ]
    assert len({event["id"] for event in answers.told}) == len(answers.told)
    assert lab.json("notify", "list")[0]["error"] is None


def test_an_instance_whose_drain_fails_is_not_touched(lab, hooked):
    before = boot_id(lab, "hooked_0")
    hooked({"command": ["sh", "-c", "echo sessions are open; exit 3"]})
    failed = lab.run("upgrade", "start", "hooked", "--version", "1.0.0", expect=1)
    assert "exit code 3: sessions are open" in failed.stderr
    assert boot_id(lab, "hooked_0") == before
    assert lab.versions("hooked") == ["1.1.0", "1.1.0"]
    members = lab.json("upgrade", "status", "hooked")["members"]
    assert [member["state"] for member in members] == ["Failed", "Pending"]


def test_killed_in_a_drain_the_next_run_takes_it_up(lab, hooked):
    hooked({"script": DRAIN}, capacity=1)
    assert any("drain succeeded" in message for message in story(lab, "hooked_1"))
    assert lab.domains("hooked") == ["hooked_0"]
    # The disk that hooked_0 was to get in vain is gone.
    assert not [name for name in lab.files("hooked") if ".g3." in name]
    lab.ask("hooked_0", "touch /data/hold; : >/data/hooks")
    before = boot_id(lab, "hooked_0")
    undrained = (lab.specs / "undrained").read_text().count("LABCTL_HOOK=undrain")
    words = ("upgrade", "start", "hooked", "--version", "1.0.0")
    killed = lab.run(*words, expect=None, env={"LABCTL_FAILPOINT": "hook:recorded"})
    assert killed.returncode == -9, killed.stderr
    running = lab.spawn("upgrade", "watch", "hooked")
    wait_for(lambda: lab.ask("hooked_0", "cat /data/hooks"), seconds=60, what="the drain")
    running.send_signal(signal.SIGKILL)
    running.communicate(timeout=30)
    assert lab.ask("hooked_0", "rm /data/hold; cat /proc/sys/kernel/random/boot_id") == before
    env = {"LABCTL_FAILPOINT": "hook:ran"}
    killed = lab.run("upgrade", "watch", "hooked", expect=None, env=env)
    assert killed.returncode == -9, killed.stderr
    assert boot_id(lab, "hooked_0") == before
    lab.run("upgrade", "watch", "hooked")
    assert lab.versions("hooked") == ["1.0.0"]
    # The script ran once, from its begin to its end, whoever waited for it.
    assert [line.split()[0] for line in lab.ask("hooked_0", "cat /data/hooks").splitlines()] == [
        "begin",
        "end",
    ]
    log = (lab.specs / "undrained").read_text()
    assert log.count("LABCTL_HOOK=undrain") == undrained + 1
    assert lab.instances("hooked")["hooked_0"]["health"] == "Healthy"
