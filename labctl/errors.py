"""The errors that users see: what failed, with which value, what to do next."""

from enum import IntEnum

from typing_extensions import override


class ExitCode(IntEnum):
    """Exit codes of every command; documented in the README."""

    OK = 0
    FAILED = (
        1  # the work was tried and did not succeed (an upgrade faulted, an instance is not healthy)
    )
    INVALID = 2  # the command line or the spec is wrong; nothing was changed
    NOT_FOUND = 3  # the named scale set, instance, image or upgrade does not exist
    REFUSED = 4  # the state of things forbids it (unhealthy set, upgrade running, image in use)
    TIMED_OUT = 5  # the goal was not reached before the deadline; the work can be continued
    HOST = 6  # the host is not ready (libvirt, QEMU, space, memory, access); see `labctl doctor`
    INTERRUPTED = 130  # Ctrl-C; the next command continues


class LabError(Exception):
    """A failure to show to a person, in three lines, without a traceback.

    `brief` says what failed and with which value, `detail` what was found, `hint` what to do next.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, brief: str, *, detail: str = "", hint: str = "") -> None:
        super().__init__(brief)
        self.brief = brief
        self.detail = detail
        self.hint = hint

    @override
    def __str__(self) -> str:
        """Join the lines that are there."""
        return "\n".join(line for line in (self.brief, self.detail, self.hint) if line)


class InvalidError(LabError):
    """The input is wrong; nothing was changed."""

    exit_code = ExitCode.INVALID


class NotFoundError(LabError):
    """The named thing does not exist."""

    exit_code = ExitCode.NOT_FOUND


class RefusedError(LabError):
    """The input is right, but the present state forbids it."""

    exit_code = ExitCode.REFUSED


class TimedOutError(LabError):
    """A deadline passed."""

    exit_code = ExitCode.TIMED_OUT


class HostError(LabError):
    """The host lacks something; `labctl doctor` says what."""

    exit_code = ExitCode.HOST


class InstanceHostError(HostError):
    """The host keeps one instance from going on; the others are not concerned."""
