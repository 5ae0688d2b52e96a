import os
import select
import socket
import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from labctl.drivers import ssh, ssh_exchange, ssh_socket
from labctl.drivers.keys import make_key_pair
from labctl.drivers.ssh import (
    CancelledError,
    HostKeyError,
    LoginRefusedError,
    SshError,
    connect,
    wait_for_ssh,
)
from labctl.errors import TimedOutError

from .clock import stop_clock
from .ssh_server import Relay, SshServer, wait_until

TEN_SECONDS = timedelta(seconds=10)
FOR_EVER = timedelta(hours=1)  # longer than a test may take: whoever waits so long never returns


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = SshServer(tmp_path_factory.mktemp("ssh")).start()
    wait_for_ssh(server.target, deadline=TEN_SECONDS).close()
    yield server
    server.stop()


@pytest.fixture
def connection(server):
    with connect(server.target, timeout=TEN_SECONDS) as connection:
        yield connection


@pytest.fixture
def listener():
    """A port that accepts and says nothing, as a forwarded one does while the guest boots."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def gate(tmp_path):
    """A file whose readers wait until the test is over."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    yield path
    os.close(os.open(path, os.O_RDWR))


@pytest.fixture
def relay(server):
    relay = Relay(server.port)
    yield relay
    relay.close()


def at(server, listener):
    return replace(server.target, port=listener.getsockname()[1])


def test_a_command_gives_exit_code_and_both_streams(connection):
    result = connection.run(["sh", "-c", "echo out; echo err >&2; exit 3"], timeout=TEN_SECONDS)
    assert (result.exit_code, result.stdout, result.stderr) == (3, "out\n", "err\n")
    assert not result.timed_out
    assert not result.has_succeeded


def test_words_reach_the_command_as_they_are(connection):
    words = ["a b", "it's", '"', "$(id)", "`id`", "*", "", "\\n", "line\nline"]
    result = connection.run(["printf", "<%s>", *words], timeout=TEN_SECONDS)
    assert result.stdout == "".join(f"<{word}>" for word in words)


def test_input_of_any_size_reaches_the_command(connection):
    for size in (0, 1, 5_000_000):
        result = connection.run(["wc", "-c"], stdin=b"x" * size, timeout=TEN_SECONDS)
        assert result.stdout.strip() == str(size)


def test_input_that_nobody_reads_does_no_harm(connection):
    result = connection.run(["true"], stdin=b"x" * 5_000_000, timeout=TEN_SECONDS)
    assert result.exit_code == 0


def test_input_that_comes_back_does_not_block(connection):
    seen = []
    data = b"0123456789abcdef" * 300_000
    result = connection.run(["cat"], stdin=data, timeout=TEN_SECONDS, on_output=seen.append)
    assert b"".join(seen) == data
    assert result.stdout == data.decode()[-64 * 1024 :]


def test_a_command_that_hangs_ends_at_the_deadline_and_the_connection_lives(
    connection, gate, monkeypatch
):
    clock = stop_clock(monkeypatch, ssh, ssh_exchange)
    seen = []

    def check():
        if seen:
            clock.tick()

    result = connection.run(
        ["sh", "-c", f"echo begun; cat {gate}"],
        timeout=TEN_SECONDS,
        on_output=seen.append,
        check=check,
    )
    assert (result.exit_code, result.stdout, result.timed_out) == (None, "begun\n", True)
    assert clock.now == TEN_SECONDS.total_seconds()
    assert connection.run(["true"], timeout=TEN_SECONDS).has_succeeded


def test_a_child_that_keeps_the_output_open_does_not_hold_the_result(connection, gate):
    result = connection.run(["sh", "-c", f"cat {gate} & echo done"], timeout=TEN_SECONDS)
    assert (result.exit_code, result.stdout, result.timed_out) == (0, "done\n", False)


def test_a_command_killed_by_a_signal_has_no_exit_code(connection):
    result = connection.run(["sh", "-c", "kill -9 $$"], timeout=TEN_SECONDS)
    assert (result.exit_code, result.timed_out) == (None, False)


def test_a_wait_for_a_command_can_be_given_up(connection, gate):
    looks = []

    def check():
        looks.append(None)
        if len(looks) == 10:  # so there is one a second at least, not only one at the end
            raise CancelledError("enough")

    with pytest.raises(CancelledError):
        connection.run(["cat", str(gate)], timeout=TEN_SECONDS, check=check)
    assert len(looks) == 10


def test_another_host_key_is_refused_at_once(server, relay):
    relay.listen()
    relay.ensure_serving()
    other = make_key_pair("other").public
    target = replace(server.target, port=relay.port, host_key_public=other)
    with pytest.raises(HostKeyError, match="another SSH host key"):
        wait_for_ssh(target, deadline=FOR_EVER)
    assert relay.spoken == 1  # not tried again


def test_a_windows_instance_may_show_its_own_host_key_late(server, relay):
    relay.listen()
    relay.ensure_serving()
    late = replace(server.target, port=relay.port, is_windows=True)
    other = replace(late, host_key_public=make_key_pair("other").public)
    with pytest.raises(TimedOutError) as raised:
        wait_for_ssh(other, deadline=timedelta(seconds=2))
    assert "another SSH host key" in raised.value.detail
    assert relay.spoken > 1
    wait_for_ssh(late, deadline=FOR_EVER).close()


def test_a_key_that_is_not_accepted_is_tried_until_the_deadline(server, tmp_path):
    key = tmp_path / "key"
    key.write_text(make_key_pair("stranger").private)
    target = replace(server.target, key_path=key)
    with pytest.raises(LoginRefusedError):
        connect(target)
    with pytest.raises(TimedOutError) as raised:
        wait_for_ssh(target, deadline=timedelta(seconds=6))
    assert "does not accept the controller's key" in raised.value.detail


def test_a_server_that_comes_up_later_is_reached_soon_after(server, relay):
    looks = []

    def check():
        """At the tenth look it comes up; it lets in who has called by the next looks."""
        looks.append(len(looks) >= 10 and relay.has_caller())
        if len(looks) == 10:
            relay.listen()
        elif looks[-1]:
            relay.ensure_serving()

    target = replace(server.target, port=relay.port)
    wait_for_ssh(target, deadline=FOR_EVER, check=check).close()
    # There are five looks in a second of waiting: the pause before the next attempt was short.
    assert looks[10:].index(True) < 5


def test_a_port_that_accepts_and_hangs_up_is_tried_again(server, listener):
    attempts = []

    def hang_up():
        while len(attempts) < 5:
            client, _ = listener.accept()
            attempts.append(client)
            client.close()

    threading.Thread(target=hang_up).start()
    with pytest.raises(TimedOutError):
        wait_for_ssh(at(server, listener), deadline=timedelta(seconds=1.5))
    wait_until(lambda: len(attempts) == 5)


def test_a_port_that_says_nothing_ends_at_the_deadline(server, listener, monkeypatch):
    clock = stop_clock(monkeypatch, ssh, ssh_socket)
    # Attempts take a second each; the last one is cut short.
    with pytest.raises(TimedOutError, match=r"no SSH login to .* within 2 s") as raised:
        wait_for_ssh(
            at(server, listener), deadline=timedelta(seconds=2.5), check=lambda: clock.tick(0.25)
        )
    assert 2.5 <= clock.now < 3
    assert "does not answer" in raised.value.detail


def test_a_server_that_stops_in_the_handshake_ends_at_the_deadline(server, listener, monkeypatch):
    clock = stop_clock(monkeypatch, ssh, ssh_socket)
    clients = []

    def check():
        if clients:
            clock.tick()

    def greet():
        client, _ = listener.accept()
        client.sendall(b"SSH-2.0-tar_pit\r\n")
        clients.append(client)

    threading.Thread(target=greet).start()
    with pytest.raises(SshError, match="did not finish the SSH handshake"):
        connect(at(server, listener), timeout=TEN_SECONDS, check=check)
    assert clock.now == TEN_SECONDS.total_seconds() + 1  # the first look after it
    clients[0].close()


def test_something_else_on_the_port_is_named(server, listener):
    def greet():
        client, _ = listener.accept()
        client.sendall(b"220 mail\r\n")
        client.close()

    threading.Thread(target=greet).start()
    with pytest.raises(SshError) as raised:
        connect(at(server, listener), timeout=timedelta(seconds=2))
    assert "no SSH server: it says b'220 '" in raised.value.detail


def test_waiting_can_be_cancelled(server, listener):
    cancel = threading.Event()
    looks_after = []

    def check():
        if cancel.is_set():
            looks_after.append(None)
        elif select.select([listener], [], [], 0)[0]:  # so an attempt is under way
            cancel.set()

    with pytest.raises(CancelledError):
        wait_for_ssh(at(server, listener), deadline=FOR_EVER, cancel=cancel, check=check)
    assert looks_after == []


def test_a_lost_connection_is_an_error_and_not_a_result(tmp_path, gate):
    server = SshServer(tmp_path).start()
    connection = wait_for_ssh(server.target, deadline=TEN_SECONDS)
    threading.Timer(0.5, server.stop).start()
    with pytest.raises(SshError, match="was lost"):
        connection.run(["cat", str(gate)], timeout=FOR_EVER)
    assert not connection.is_open
    with pytest.raises(SshError, match="was lost"):
        connection.run(["true"], timeout=TEN_SECONDS)
    connection.close()
    connection.close()


def test_threads_may_share_a_connection(connection):
    results = {}

    def ask(number):
        results[number] = connection.run(
            ["sh", "-c", f"sleep 0.2; echo {number}"], timeout=TEN_SECONDS
        ).stdout

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"{number}\n" for number in range(5)}
