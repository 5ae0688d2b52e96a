"""Reads the serial console's log as it grows, and knows the lines that mean trouble."""

import re
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

_CHUNK = 256 * 1024
_KEPT_LINES = 400
_LINE_LIMIT = 4096  # characters; a console without newlines must not eat the memory

# Escape sequences (colours, cursor, titles), then what is left of control characters.
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?"
    r"|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Severity(StrEnum):
    """What a line says about the boot."""

    FATAL = "fatal"  # this boot cannot succeed any more
    WARNING = "warning"  # worth telling; the boot may still succeed


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One kind of line."""

    id: str
    regex: re.Pattern[str]
    severity: Severity
    meaning: str  # for people


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A line that matched."""

    pattern: Pattern
    line: str

    @property
    def is_fatal(self) -> bool:
        """Can this boot not succeed any more?"""
        return self.pattern.severity is Severity.FATAL

    @property
    def message(self) -> str:
        """For people: the meaning and the line."""
        return f"{self.pattern.meaning}: {self.line.strip()[:200]}"


def _pattern(id: str, severity: Severity, meaning: str, regex: str) -> Pattern:  # noqa: A002 - the pattern's own word
    return Pattern(id=id, regex=re.compile(regex), severity=severity, meaning=meaning)


# The first that matches names the line. Lines of user space can quote anything, so the fatal ones
# are those that only firmware, boot loader, kernel and init print.
PATTERNS = (
    _pattern(
        "kernel-panic",
        Severity.FATAL,
        "the kernel panicked",
        r"Kernel panic - not syncing|end Kernel panic",
    ),
    _pattern(
        "no-bootable-device",
        Severity.FATAL,
        "the firmware finds nothing to boot",
        r"No bootable device|BdsDxe: No bootable|Missing operating system"
        r"|Operating system load error|FATAL: No bootable medium",
    ),
    _pattern(
        "boot-loader",
        Severity.FATAL,
        "the boot loader finds no system",
        r"^grub rescue>|^grub> ?$|^Could not find kernel image|No DEFAULT or UI configuration"
        r"|^Failed to load ldlinux",
    ),
    # The next device or entry may still boot.
    _pattern(
        "boot-attempt",
        Severity.WARNING,
        "an attempt to boot failed",
        r"Boot failed: not a bootable disk|BdsDxe: failed to|^error: (no such (device|partition)"
        r"|unknown filesystem|file .* not found)",
    ),
    _pattern(
        "no-root",
        Severity.FATAL,
        "the root file system was not found",
        r"VFS: Unable to mount root fs|ALERT! .* does not exist\.? *Dropping to a shell"
        r"|\(initramfs\) *$|dracut: (Refusing to continue|FATAL)|Gave up waiting for root",
    ),
    _pattern(
        "emergency-shell",
        Severity.FATAL,
        "the system stopped in an emergency shell",
        r"You are in (emergency|rescue) mode|(Press Enter for|Starting) [Ee]mergency [Ss]hell"
        r"|Give root password for maintenance|dracut:/#",
    ),
    _pattern(
        "halted",
        Severity.FATAL,
        "the system halted",
        r"reboot: (System halted|Power down)|^The operating system has halted",
    ),
    _pattern(
        "kernel-bug",
        Severity.WARNING,
        "the kernel reports a fault of its own",
        r"Oops:|kernel BUG at|BUG: (?!soft lockup)|general protection fault|unable to handle"
        r"|kernel NULL pointer|WARNING: (CPU: \d+ PID: \d+ )?at ",
    ),
    # On a busy host that emulates, these say that the host was slow.
    _pattern(
        "stall",
        Severity.WARNING,
        "the processor did not get on",
        r"soft lockup|hard LOCKUP|rcu_\w+ (self-)?detected stall|blocked for more than \d+ seconds",
    ),
    _pattern(
        "out-of-memory",
        Severity.WARNING,
        "memory ran out",
        r"Out of memory: Killed process|invoked oom-killer",
    ),
    _pattern(
        "disk",
        Severity.WARNING,
        "a disk or file system has errors",
        r"I/O error, dev |EXT4-fs error|XFS .*(Corruption|[Ss]hutting down)"
        r"|[Rr]emounting filesystem read-only|rejecting I/O to offline device",
    ),
    _pattern(
        "unit-failed",
        Severity.WARNING,
        "a unit failed to start",
        r"\[FAILED\] Failed to |Dependency failed for |Timed out waiting for device",
    ),
)


def find_pattern(line: str) -> Pattern | None:
    """Return the first pattern that the line matches."""
    return next((pattern for pattern in PATTERNS if pattern.regex.search(line)), None)


def clean_text(raw: bytes) -> str:
    """Decode; take out escape sequences and control characters; keep tabs and newlines."""
    text = raw.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


class SerialLog:
    """Follows one log file from an offset. A missing file is one that is not there yet."""

    def __init__(self, path: Path, *, offset: int = 0) -> None:
        self._path = path
        self._offset = offset
        self._rest = b""  # the line that is not complete yet
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._reported_rest = False
        self.findings: list[Finding] = []

    def poll(self) -> list[Finding]:
        """Read what was added; return the new findings, oldest first."""
        found: list[Finding] = []
        before = self._rest
        while data := self._read():
            *complete, self._rest = (self._rest + data).split(b"\n")
            self._rest = self._rest[-_LINE_LIMIT:]
            for raw in complete:
                line = _decode(raw)
                self._lines.append(line)
                if not self._reported_rest:
                    found += _find(line)
                self._reported_rest = False
        # A prompt ends without a newline: a line that did not grow since the last look may be one.
        if self._rest and self._rest == before and not self._reported_rest:
            at_prompt = [finding for finding in _find(_decode(self._rest)) if finding.is_fatal]
            self._reported_rest = bool(at_prompt)
            found += at_prompt
        self.findings += found
        return found

    def tail(self, count: int = 20) -> tuple[str, ...]:
        """Return the last lines that were read, empty ones left out."""
        lines = [*self._lines, _decode(self._rest)]
        return tuple([line for line in lines if line.strip()][-count:])

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, 2)
                if size < self._offset:  # begun anew, by log rotation
                    self._offset = 0
                file.seek(self._offset)
                data = file.read(_CHUNK)
        except FileNotFoundError:
            return b""
        self._offset += len(data)
        return data


def read_tail(path: Path, *, offset: int = 0, count: int = 20) -> tuple[str, ...]:
    """Return the last lines of a log, for evidence."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return ()
    log = SerialLog(path, offset=max(offset if offset <= size else 0, size - _CHUNK))
    log.poll()
    return log.tail(count)


def _decode(raw: bytes) -> str:
    return clean_text(raw[:_LINE_LIMIT]).replace("\n", " ").rstrip()


def _find(line: str) -> list[Finding]:
    pattern = find_pattern(line)
    return [] if pattern is None else [Finding(pattern=pattern, line=line)]
