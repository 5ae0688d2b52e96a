"""Tells systemd how the daemon is, by the protocol of sd_notify(3)."""

import socket
from collections.abc import Mapping
from contextlib import suppress


class ServiceManager:
    """The service manager that started this process; without one, nothing is told."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Read NOTIFY_SOCKET; `environment` is usually os.environ."""
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the zero byte of Linux's abstract sockets.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    def ready(self, status: str) -> None:
        """Tell that the service is up."""
        self._tell(f"READY=1\nSTATUS={status}")

    def alive(self, status: str) -> None:
        """Tell that the main loop still turns."""
        self._tell(f"WATCHDOG=1\nSTATUS={status}")

    def stopping(self) -> None:
        """Tell that the service is on its way down."""
        self._tell("STOPPING=1\nSTATUS=stopping")

    def _tell(self, text: str) -> None:
        if not self._address:
            return
        # A manager that went away must not end the work.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
            door.sendto(text.encode(), self._address)
