"""What systemd is told, on a real socket."""

import os
import socket

import pytest

from labctl.drivers.service_manager import ServiceManager


@pytest.mark.parametrize("is_abstract", [False, True])
def test_the_service_manager_hears_of_every_change(tmp_path, is_abstract):
    name = f"labctl-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(f"\0{name}" if is_abstract else name)
        manager = ServiceManager({"NOTIFY_SOCKET": f"@{name}" if is_abstract else name})
        manager.ready("2 scale sets")
        manager.alive("3 scale sets")
        manager.stopping()
        heard = [ear.recv(4096).decode() for _ in range(3)]
    assert heard == [
        "READY=1\nSTATUS=2 scale sets",
        "WATCHDOG=1\nSTATUS=3 scale sets",
        "STOPPING=1\nSTATUS=stopping",
    ]


def test_without_a_service_manager_nothing_is_told(tmp_path):
    ServiceManager({}).ready("2 scale sets")
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("2 scale sets")
