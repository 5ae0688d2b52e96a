"""Connections to a listener that never says anything."""

import socket
import threading
from datetime import timedelta

import pytest
import requests

from labctl.drivers.deadline import Deadline, DeadlineAdapter

SOON = 10  # seconds; what takes so long is not ended by its deadline


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("way", ["direct", "by a proxy"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_request_ends_at_its_deadline_also_in_a_handshake(port, scheme, way):
    here = f"127.0.0.1:{port}"
    host = here if way == "direct" else "hooks.example"
    with requests.Session() as session, Deadline(timedelta(seconds=0.2)) as deadline:
        session.trust_env = False
        session.proxies = {} if way == "direct" else {scheme: f"http://{here}"}
        session.mount(f"{scheme}://", DeadlineAdapter())
        with pytest.raises(requests.RequestException) as caught:
            session.get(f"{scheme}://{host}/", timeout=SOON)
    assert deadline.has_passed
    assert not isinstance(caught.value, requests.Timeout)


def test_what_is_opened_after_the_deadline_is_shut_at_once():
    mine, other = socket.socketpair()
    has_come = threading.Event()
    with mine, other, Deadline(timedelta(0)) as deadline:
        while not deadline.has_passed:
            has_come.wait(0.01)
        deadline.watch(mine)
        other.settimeout(SOON)
        assert other.recv(1) == b""
