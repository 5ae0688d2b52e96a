"""Extensions with credentials and secrets on real VMs: what is refused, renewed, never shown."""

import hashlib
import signal
import subprocess

import pytest

from tests.drivers.file_server import FileServer
from tests.e2e.harness import HEALTH, wait_for

PASSWORD = "pa55word-of-the-application"
FIRST, SECOND = "t0ken-that-expires", "t0ken-of-tomorrow"
SCRIPT = b"""#!/bin/sh
. /etc/labctl-image
echo "$IMAGE_VERSION" >>/root/runs
sha256sum <"$LABCTL_SETTINGS_DIR/protected/password" >/root/seen
echo "port $(cat "$LABCTL_SETTINGS_DIR/settings/port"), password $(cat \\
    "$LABCTL_SETTINGS_DIR/protected/password")"
"""
# Without Python in the guest, raw is what there is.
PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Tell that it ran
      ansible.builtin.raw: "echo {{ labctl_settings.word }} >>/root/played"
    - name: Show what must not be shown
      ansible.builtin.debug:
        msg: "{{ labctl_protected_settings.password }}"
"""


@pytest.fixture
def server():
    made = FileServer()
    made.files["/install.sh"] = SCRIPT
    made.token = FIRST
    yield made
    made.stop()


def install(server, token):
    return {
        "name": "install",
        "url": server.url("/install.sh"),
        "sha256": hashlib.sha256(SCRIPT).hexdigest(),
        "allowHttp": True,
        "settings": {"port": 8080},
        "protectedSettings": {"bearerToken": token, "password": PASSWORD},
    }


def grep(lab, *secrets):
    """Files of the state directory that hold a secret, but the store and what tests write."""
    found = set()
    for secret in secrets:
        done = subprocess.run(
            ["grep", "-rlsaF", "--exclude-dir=specs", secret, str(lab.state_dir)],
            capture_output=True,
            text=True,
        )
        found |= {line.rpartition("/")[2] for line in done.stdout.splitlines()}
    return {name for name in found if not name.startswith("labctl.db")}


def grep_guest(lab, instance, secret):
    # In two words, so that the question is not what is found.
    script = f"""a={secret[:6]} b={secret[6:]}
        grep -rlsF "$a$b" /var /run /root /etc /tmp /dev/shm /usr/local || true"""
    return lab.ask(instance, script)


def told(lab, scale_set, upgrade=None):
    """Everything that labctl says of a scale set."""
    texts = [lab.run("get", scale_set, "-o", "json").stdout]
    texts += [lab.run(*words, scale_set, "-o", "json").stdout for words in (["show"], ["events"])]
    texts += [lab.run("instance", "show", f"{scale_set}_0", "-o", "json").stdout]
    texts += [lab.run("why", f"{scale_set}_0").stdout]
    if upgrade is not None:
        texts += [lab.run("upgrade", "show", upgrade, "-o", "json").stdout]
        texts += [lab.run("upgrade", "history", scale_set, "-o", "json").stdout]
    return "\n".join(texts)


def test_an_expired_credential_leaves_the_first_batch_failed_until_it_is_renewed(lab, server):
    before = install(server, FIRST)
    lab.apply("cred", capacity=2, health=HEALTH, extensions=[before])
    try:
        server.uses_left = 1  # good when the upgrade begins, refused when the first instance asks
        failed = lab.run("upgrade", "start", "cred", "--version", "1.1.0", "--rollback", expect=1)
        assert "protectedSettings.bearerToken" in failed.stderr
        # Not restored although that was asked for, and the second one is untouched.
        assert lab.versions("cred") == ["1.1.0", "1.0.0"]
        status = lab.json("upgrade", "status", "cred")
        assert [member["state"] for member in status["members"]] == ["Failed", "Pending"]
        history = lab.json("upgrade", "history", "cred")
        assert history[0]["runningStatus"]["code"] == "Faulted"
        assert history[0]["error"]["code"] == "ExtensionCredentialRefused"
        assert (
            "'protectedSettings.bearerToken' expired or refused" in history[0]["error"]["message"]
        )
        run = lab.json("instance", "show", "cred_0")["osDisks"][-1]["extensions"][0]
        assert (run["fault"], run["exitCode"]) == ("credential", None)
        # Another start is refused before anything changes, and the dry run says so.
        refused = lab.run("upgrade", "start", "cred", "--version", "1.1.0", expect=4)
        assert "install: credential" in refused.stderr
        plan = lab.json("upgrade", "plan", "cred", "--version", "1.1.0")
        assert plan["unreachable"][0]["extension"] == "install"
        assert grep(lab, FIRST, PASSWORD) == set()
        said = told(lab, "cred", status["id"])
        assert FIRST not in said
        assert PASSWORD not in said
        # The page's way out: renew, update the model, apply.
        server.token, server.uses_left = SECOND, None
        after = install(server, SECOND)
        lab.apply("cred", capacity=2, health=HEALTH, extensions=[after])
        assert {row["health"] for row in lab.instances("cred").values()} == {"Healthy"}
        assert lab.versions("cred") == ["1.1.0", "1.0.0"]
        lab.run("upgrade", "start", "cred", "--version", "1.1.0")
        assert lab.versions("cred") == ["1.1.0", "1.1.0"]
        assert lab.ask("cred_0", "cat /root/runs").split() == ["1.1.0"]
        digest = hashlib.sha256(PASSWORD.encode()).hexdigest()
        for name in ("cred_0", "cred_1"):
            assert lab.ask(name, "cat /root/seen").split()[0] == digest
            assert grep_guest(lab, name, PASSWORD) == ""
            assert grep_guest(lab, name, SECOND) == ""
        assert grep(lab, FIRST, SECOND, PASSWORD) == set()
        said = told(lab, "cred", status["id"])
        assert not any(secret in said for secret in (FIRST, SECOND, PASSWORD))
        assert (lab.state_dir / "labctl.db").stat().st_mode & 0o777 == 0o600
    finally:
        lab.remove("cred")


def test_tags_run_again_failures_are_suppressed_and_a_killed_controller_runs_nothing_twice(lab):
    secret = {"password": PASSWORD}
    long = {
        "name": "long",
        "script": "#!/bin/sh\necho begun >>/root/long\nsleep 12\necho ended >>/root/long\n"
        'cat "$LABCTL_SETTINGS_DIR/protected/password"\n',
        "protectedSettings": secret,
    }
    fails = {"name": "fails", "script": "echo sorry; exit 3", "suppressFailures": True}
    last = {
        "name": "last",
        "script": "echo x >>/root/last",
        "provisionAfterExtensions": ["fails"],
        "forceUpdateTag": "1",
    }
    (lab.specs / "play.yml").write_text(PLAYBOOK)
    play = {"name": "play", "playbook": "play.yml", "settings": {"word": "played"}}
    play |= {"protectedSettings": secret}
    extensions = [long, fails, last, play]
    spec = lab.spec("tagged", health=HEALTH, extensions=extensions)
    try:
        first = lab.spawn("apply", spec)
        wait_for(
            lambda: (
                "begun"
                in lab.run(
                    "instance", "ssh", "tagged_0", "--", "cat /root/long", expect=None
                ).stdout
            ),
            seconds=120,
            what="the long extension",
        )
        first.send_signal(signal.SIGKILL)
        first.communicate()
        lab.run("apply", spec)
        assert lab.ask("tagged_0", "cat /root/long").split() == ["begun", "ended"]
        shown = lab.json("instance", "show", "tagged_0")
        runs = {run["name"]: run for run in shown["osDisks"][-1]["extensions"]}
        assert (runs["fails"]["exitCode"], runs["fails"]["suppressed"]) == (3, True)
        assert (runs["last"]["exitCode"], runs["last"]["forceUpdateTag"]) == (0, "1")
        assert shown["health"] == "Healthy"
        assert lab.ask("tagged_0", "cat /root/played").split() == ["played"]
        assert "by its suppressFailures" in lab.run("events", "tagged").stdout
        boot = lab.ask("tagged_0", "cat /proc/sys/kernel/random/boot_id")
        again = lab.run("apply", spec, "-o", "json")
        assert '"changed": false' in again.stdout
        # Another tag alone: the same OS disk, the same boot, one more run of that extension.
        last["forceUpdateTag"] = "2"
        lab.apply("tagged", health=HEALTH, extensions=extensions)
        assert lab.ask("tagged_0", "cat /root/last").split() == ["x", "x"]
        assert lab.ask("tagged_0", "cat /proc/sys/kernel/random/boot_id") == boot
        assert lab.ask("tagged_0", "cat /root/long").split() == ["begun", "ended"]
        assert lab.instances("tagged")["tagged_0"]["latestModelApplied"] is True
        assert grep_guest(lab, "tagged_0", PASSWORD) == ""
        assert grep(lab, PASSWORD) == set()
        assert PASSWORD not in told(lab, "tagged")
    finally:
        lab.remove("tagged")
