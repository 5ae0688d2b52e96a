"""One contract for both health agents, agent.py and agent.sh."""

import datetime
import socket
import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from .conftest import TOKEN, Agent, Application, free_port


def test_a_healthy_application_is_reported_with_boot_id_and_since(agent, application):
    agent.start(appPort=application.port, requestPath="/health?full=1&x='$(id)'\"")
    agent.wait(lambda: agent.verdict()[0] == "Healthy")
    status, body = agent.get()
    assert status == 200
    assert body == {
        "state": "Healthy",
        "detail": "HTTP 200 from /health?full=1&x='$(id)'\"",
        "since": body["since"],
        "bootId": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
    }
    assert 0 <= time.time() - body["since"] < 10
    assert set(application.paths) == {"/health?full=1&x='$(id)'\""}


@pytest.mark.parametrize("status", [204, 302, 503])
def test_any_other_status_than_200_is_unhealthy(agent, application, status):
    application.status = status
    agent.start(appPort=application.port)
    agent.wait(lambda: agent.verdict() == ("Unhealthy", f"HTTP {status} from /health"))


def test_the_verdict_follows_the_application(agent, application):
    agent.start(appPort=application.port)
    agent.wait(lambda: agent.verdict()[0] == "Healthy")
    application.status = 503
    agent.wait(lambda: agent.verdict()[0] == "Unhealthy")
    application.status = 200
    agent.wait(lambda: agent.verdict()[0] == "Healthy")


def test_several_probes_in_a_row_are_needed_to_leave_initializing(agent, application):
    agent.start(appPort=application.port, numberOfProbes=3)
    assert agent.verdict() == ("Initializing", "not probed yet")
    agent.wait(lambda: agent.verdict()[0] == "Healthy")
    assert len(application.paths) >= 3


def test_nobody_on_the_port_is_unhealthy_and_the_reason_is_told(agent):
    agent.start(appPort=free_port())
    agent.wait(lambda: agent.verdict() == ("Unhealthy", "/health: Connection refused"))


def test_tcp_needs_the_handshake_only(agent, application):
    agent.start(appPort=application.port, protocol="tcp", requestPath="")
    agent.wait(lambda: agent.verdict() == ("Healthy", f"port {application.port} accepts"))
    application.close()
    agent.wait(
        lambda: agent.verdict() == ("Unhealthy", f"port {application.port}: Connection refused")
    )


def test_https_is_asked_without_trusting_a_certificate(agent, tmp_path):
    application = Application(tls=self_signed(tmp_path / "tls.pem"))
    agent.start(appPort=application.port, protocol="https")
    agent.wait(lambda: agent.verdict() == ("Healthy", "HTTP 200 from /health"))
    application.status = 302
    agent.wait(lambda: agent.verdict() == ("Unhealthy", "HTTP 302 from /health"))
    application.close()


def test_without_the_token_nothing_is_told(agent, application):
    agent.start(appPort=application.port)
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"X-Labctl-Token": ""},
        {"X-Labctl-Token": "$(id)"},
    ):
        assert agent.get(headers=headers) == (401, {"error": "wrong or no token"})
        assert agent.get(path="/etc/passwd", headers=headers)[0] == 401


def test_either_header_carries_the_token_and_only_get_health_is_there(agent, application):
    agent.start(appPort=application.port)
    assert agent.get(headers={"x-labctl-TOKEN": TOKEN})[0] == 200
    assert agent.get(headers={"authorization": f"bearer {TOKEN}"})[0] == 200
    assert agent.get(path="/other")[0] == 404
    assert agent.get(method="PUT")[0] == 405


def test_garbage_is_refused_and_the_agent_lives_on(agent, application):
    agent.start(appPort=application.port)
    for garbage in (
        b"\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"\x00\xff\x16\x03\x01 what\r\n\r\n",
        b"GET /health HTTP/1.1\r\nAuthorization",
        b"GET /health HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"a" * 1_000_000,
    ):
        assert agent.raw(garbage).split(b"\r\n")[0] in {
            b"",
            b"reset",
            b"HTTP/1.1 400 Bad Request",
            b"HTTP/1.1 401 Unauthorized",
        }
        assert agent.get()[0] == 200


def test_the_token_is_in_no_argument_list_and_in_no_file(agent, application, tmp_path):
    agent.start(appPort=application.port)
    agent.get()
    listing = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True).stdout
    assert TOKEN not in listing
    assert not [path for path in tmp_path.iterdir() if TOKEN in path.read_text()]


def test_a_prober_that_died_is_not_taken_for_health(tmp_path, application):
    agent = Agent("sh", tmp_path)
    agent.start(appPort=application.port)
    try:
        agent.wait(lambda: agent.verdict()[0] == "Healthy")
        lines = (tmp_path / "state").read_text().splitlines()
        agent.process.kill()  # the prober is the first process, the listener its child
        agent.process.wait()
        (tmp_path / "state").write_text("\n".join(["0", *lines[1:]]) + "\n")
        assert agent.verdict()[0] == "Unknown"
    finally:
        agent.stop()


def test_the_python_agent_is_small(tmp_path, application):
    agent = Agent("py", tmp_path)
    agent.start(appPort=application.port)
    try:
        for _ in range(20):
            agent.get()
        status = Path(f"/proc/{agent.process.pid}/status").read_text()
    finally:
        agent.stop()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    assert int(resident.split()[1]) < 20_000  # kB


@pytest.mark.root
def test_the_python_agent_does_not_stay_root(tmp_path, application):
    agent = Agent("py", tmp_path)
    agent.start(appPort=application.port, uid=61178)
    try:
        status = Path(f"/proc/{agent.process.pid}/status").read_text()
        assert agent.get()[0] == 200
    finally:
        agent.stop()
    assert "\nUid:\t61178\t61178\t61178\t61178\n" in status
    assert "\nCapEff:\t0000000000000000\n" in status


def self_signed(path):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "elsewhere.example")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=10_000))
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


def test_an_application_that_does_not_come_to_an_end_is_given_up_at_the_interval(tmp_path):
    """It accepts and is silent; each probe has its own time, and no process stays behind."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        agent = Agent("sh", tmp_path)
        agent.start(appPort=mute.getsockname()[1])
        try:
            agent.wait(lambda: agent.verdict() == ("Unhealthy", "/health: timed out"))
            before = (tmp_path / "state").read_text()
            agent.wait(lambda: len(find_processes(agent, "nc 127.0.0.1")) == 1)
            agent.wait(lambda: len(find_processes(agent, "nc 127.0.0.1")) == 0)
            agent.wait(lambda: len(find_processes(agent, "nc 127.0.0.1")) == 1)
            assert before.splitlines()[1:] == (tmp_path / "state").read_text().splitlines()[1:]
        finally:
            agent.stop()


def test_with_the_prober_its_guard_ends(tmp_path, application):
    agent = Agent("sh", tmp_path)
    agent.start(appPort=application.port)
    try:
        agent.wait(lambda: agent.verdict()[0] == "Healthy")
        agents = len(find_processes(agent, "agent.sh"))
        agent.process.kill()
        agent.process.wait()
        agent.wait(lambda: len(find_processes(agent, "agent.sh")) == agents - 2)
    finally:
        agent.stop()


def find_processes(agent, text):
    """The command lines, with `text` in them, of the session that the agent began."""
    listing = subprocess.run(["ps", "axww", "-o", "sid=,args="], capture_output=True, text=True)
    rows = (line.strip().partition(" ") for line in listing.stdout.splitlines())
    return [args for sid, _, args in rows if sid == str(agent.process.pid) and text in args]
