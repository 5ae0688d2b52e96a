import multiprocessing
import re
import subprocess

import pytest

from labctl.drivers.keys import ensure_controller_key, generate_identity, make_mac
from labctl.errors import HostError
from labctl.settings import Settings


@pytest.fixture
def settings(tmp_path):
    return Settings(state_dir=tmp_path / "a b's", uri="test:///default")


def ensure(settings, results):
    results.put(ensure_controller_key(settings))


def test_the_controller_key_is_made_once_and_is_private(settings):
    first = ensure_controller_key(settings)
    assert first == ensure_controller_key(settings)
    assert re.fullmatch(r"ssh-ed25519 [A-Za-z0-9+/]{68} labctl", first)
    assert settings.controller_key.stat().st_mode & 0o777 == 0o600
    assert settings.controller_key.parent.stat().st_mode & 0o777 == 0o700


def test_processes_that_start_at_once_get_the_same_key(settings):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=ensure, args=(settings, results)) for _ in range(4)]
    for process in processes:
        process.start()
    keys = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert keys == {ensure_controller_key(settings)}


def test_a_file_that_is_no_key_is_refused_and_kept(settings):
    settings.controller_key.parent.mkdir(parents=True)
    settings.controller_key.write_text("not a key")
    with pytest.raises(HostError, match="not readable as a key"):
        ensure_controller_key(settings)
    assert settings.controller_key.read_text() == "not a key"


def test_openssh_reads_what_is_generated(tmp_path):
    identity = generate_identity(ssh_port=1, agent_port=2, probe_port=3, address=None)
    path = tmp_path / "key"
    path.write_text(identity.host_key)
    path.chmod(0o600)
    public = subprocess.run(
        ["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, check=True
    ).stdout
    assert public.split()[:2] == identity.host_key_public.split()[:2]
    assert len(identity.agent_token) == 64


def test_addresses_are_local_to_qemu_and_differ():
    addresses = {make_mac() for _ in range(50)}
    assert len(addresses) == 50
    assert all(re.fullmatch(r"52:54:00(:[0-9a-f]{2}){3}", address) for address in addresses)
