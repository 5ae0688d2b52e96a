"""The API's part of `labctl serve`: set up once, served with TLS, ended and begun again."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading

import pytest
import requests

from labctl.api.server import Endpoint, open_socket
from labctl.cli.app import main
from labctl.controller.clock import now
from labctl.drivers.certificates import ensure_identity
from labctl.settings import Settings

SOON = 60  # seconds; a test that waits so long has failed


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LABCTL_ACCELERATION", "tcg")  # nothing is to be found out by a trial

    def run(*words):
        code = main([*words, "--state-dir", str(tmp_path / "state")])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def set_up(run, *words):
    code, text = run("serve", "--init", "-o", "json", *words)
    assert code == 0, text
    return json.loads(text)


def read(tmp_path):
    files = (tmp_path / "state" / "api").iterdir()
    return {path.name: path.read_bytes() for path in files}


def test_set_up_twice_changes_nothing_and_makes_no_second_token(run, tmp_path):
    first = set_up(run)
    before = read(tmp_path)
    second = set_up(run)
    assert first.pop("token").startswith("labctl_")
    del first["clientId"]
    assert second == first
    assert read(tmp_path) == before
    _, text = run("serve", "--init")
    assert "labctl token create NAME --scope admin" in text
    assert json.loads(run("token", "list", "-o", "json")[1])[0]["name"] == "admin"


def test_set_up_tells_what_is_next(run, tmp_path):
    code, text = run("serve", "--init", "--host", "lab7.example.org", "--listen", "0.0.0.0:9443")
    assert code == 0
    assert f"export REQUESTS_CA_BUNDLE={tmp_path}/state/api/ca.pem" in text
    assert f"labctl serve --listen 0.0.0.0:9443 --state-dir {tmp_path}/state\n" in text
    assert f"curl --cacert {tmp_path}/state/api/ca.pem -H " in text
    assert "az cloud register -n lab --endpoint-resource-manager https://lab7.example.org:9443" in (
        text
    )
    assert "--tenant adfs" in text
    assert text.count("labctl_") == 1


def test_further_hosts_come_to_those_that_are_known(run):
    assert set_up(run, "--host", "A.example.org")["hosts"] == ["a.example.org"]
    assert set_up(run, "--host", "192.0.2.7")["hosts"] == ["a.example.org", "192.0.2.7"]
    assert set_up(run)["hosts"] == ["a.example.org", "192.0.2.7"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "lab7"], "--host goes with --init"),
        (["--init", "--host", "lab:7"], "neither a host name nor an address"),
        (["--listen", "8443"], "not like HOST:PORT"),
        (["--tls-key", "key.pem"], "--tls-key goes with --tls-cert"),
        (["--tls-cert", "none.pem"], "'none.pem' cannot be read"),
        (["--init", "--tls-cert", "none.pem"], "'none.pem' cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_begins(run, tmp_path, words, said):
    code, text = run("serve", *words)
    assert (code, said in text) == (2, True), text
    assert not (tmp_path / "state" / "api").exists()


def test_a_port_in_use_is_told_before_anything_begins(run):
    set_up(run)
    with contextlib.closing(open_socket(Endpoint(host="127.0.0.1", port=0))) as taken:
        code, text = run("serve", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert code == 6
    assert "the port is in use" in text
    assert "serving" not in text


def test_the_unit_file_serves_the_api_in_the_same_way(run, tmp_path):
    words = ["--listen", "0.0.0.0:9443", "--tls-cert", "a b.pem", "--tls-key", "/k.pem"]
    start = next(x for x in run("serve", "--systemd-unit", *words)[1].splitlines() if "Exec" in x)
    given = shlex.split(start)
    assert given[given.index("--listen") + 1] == "0.0.0.0:9443"
    assert given[given.index("--tls-cert") + 1] == os.path.abspath("a b.pem")  # noqa: PTH100
    assert given[given.index("--tls-key") + 1] == "/k.pem"
    assert "serve --no-api --first-within" in run("serve", "--systemd-unit", "--no-api")[1]


class Daemon:
    """`labctl serve` as a process of its own."""

    def __init__(self, tmp_path, *words):
        self.state = tmp_path / "state"
        self.lines = []
        self._told = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "labctl", "serve", "--state-dir", self.state, *words],
            env=os.environ | {"LABCTL_URI": "test:///default", "LABCTL_ACCELERATION": "tcg"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self._told:
                self.lines.append(line)
                self._told.notify_all()
        with self._told:
            self.lines.append("")
            self._told.notify_all()

    def wait_for(self, text):
        """The line that has it."""

        def find():
            return [line for line in self.lines if text in line or not line]

        with self._told:
            assert self._told.wait_for(find, SOON), self.lines
            assert find()[0], self.lines
            return find()[0]

    def end(self, number):
        self.process.send_signal(number)
        code = self.process.wait(SOON)
        self._reader.join()
        self.process.stdout.close()
        return code


def ask(daemon, secret):
    url = (daemon.state / "api" / "address").read_text().strip()
    return requests.get(
        f"{url}/metrics",
        headers={"Authorization": f"Bearer {secret}"},
        verify=str(daemon.state / "api" / "ca.pem"),
        timeout=SOON,
    )


def test_a_daemon_that_was_killed_is_asked_again_with_the_same_token(run, tmp_path):
    secret = set_up(run)["token"]
    daemon = Daemon(tmp_path, "--listen", "127.0.0.1:0")
    try:
        first = daemon.wait_for("API: https://127.0.0.1:")
        assert ask(daemon, secret).status_code == 200
        port = first.rpartition(":")[2].strip()
        # Another one must neither take its place nor its address away.
        code, said = run("serve", "--listen", "127.0.0.1:0", "--uri", "test:///default")
        assert (code, "another labctl serve" in said) == (4, True)
        assert "serving" not in said
        assert ask(daemon, secret).status_code == 200
    finally:
        daemon.end(signal.SIGKILL)
    assert (tmp_path / "state" / "api" / "address").exists()
    # What was under way for clients: it may be secret, or large.
    rests = [tmp_path / "state" / "api" / each for each in ("commands/a/sent/0", "uploads/b.part")]
    for rest in rests:
        rest.parent.mkdir(parents=True)
        rest.touch()
    daemon = Daemon(tmp_path, "--listen", f"127.0.0.1:{port}")
    try:
        daemon.wait_for("API: https://127.0.0.1:")
        assert ask(daemon, secret).status_code == 200
        assert not any(rest.exists() for rest in rests)
    finally:
        code = daemon.end(signal.SIGTERM)
    assert code == 0, daemon.lines
    assert "stopped; instances run on" in daemon.lines[-2]
    assert not (tmp_path / "state" / "api" / "address").exists()


def test_a_lab_that_was_not_set_up_serves_no_api_and_says_how_to_get_it(tmp_path):
    daemon = Daemon(tmp_path)
    try:
        daemon.wait_for("run once: labctl serve --init")
    finally:
        code = daemon.end(signal.SIGTERM)
    assert code == 0, daemon.lines
    assert "API: https" not in "".join(daemon.lines)
    assert not (tmp_path / "state" / "api").exists()


def test_a_certificate_of_one_s_own_needs_no_set_up(run, tmp_path):
    other = Settings(state_dir=tmp_path / "other", uri="")
    own = ensure_identity(other, (), host_name="lab7", now=now()).certificate
    made = json.loads(run("token", "create", "ci", "--scope", "read", "-o", "json")[1])
    daemon = Daemon(tmp_path, "--listen", "127.0.0.1:0", "--tls-cert", own)
    try:
        url = daemon.wait_for("API: https://").rpartition(" ")[2].strip()
        headers = {"Authorization": f"Bearer {made['token']}"}
        trusted = str(other.ca_certificate)
        answer = requests.get(f"{url}/metrics", headers=headers, verify=trusted, timeout=SOON)
        assert answer.status_code == 200
    finally:
        code = daemon.end(signal.SIGTERM)
    assert code == 0, daemon.lines
    assert not (tmp_path / "state" / "api" / "ca.pem").exists()
