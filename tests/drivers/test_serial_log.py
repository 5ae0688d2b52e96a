import pytest

from labctl.drivers.serial_log import SerialLog, Severity, clean_text, find_pattern, read_tail

FATAL = {
    "[    2.1] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)": (
        "kernel-panic"
    ),
    "[    2.2] ---[ end Kernel panic - not syncing: Attempted to kill init! ]---": "kernel-panic",
    "No bootable device.": "no-bootable-device",
    "grub rescue> ": "boot-loader",
    "grub> ": "boot-loader",
    "Could not find kernel image: linux": "boot-loader",
    "ALERT!  UUID=1234 does not exist.  Dropping to a shell!": "no-root",
    "(initramfs) ": "no-root",
    "You are in emergency mode. After logging in, type": "emergency-shell",
    "[   12.3] reboot: Power down": "halted",
}
WARNING = {
    "Boot failed: not a bootable disk": "boot-attempt",
    "error: no such device: 1234.": "boot-attempt",
    "[    3.0] Oops: 0002 [#1] SMP": "kernel-bug",
    "[    3.0] WARNING: CPU: 0 PID: 1 at kernel/x.c:12": "kernel-bug",
    "[   30.0] watchdog: BUG: soft lockup - CPU#0 stuck for 22s!": "stall",
    "[   30.0] rcu: INFO: rcu_preempt detected stalls on CPUs": "stall",
    "[   30.0] Out of memory: Killed process 12 (python3)": "out-of-memory",
    "[   30.0] I/O error, dev vda, sector 12": "disk",
    "[FAILED] Failed to start labctl-health.service - Health agent.": "unit-failed",
}
HARMLESS = (
    "[    0.0] Command line: root=/dev/vda1 panic=-1 console=ttyS0",
    "[    0.1] rcu: Hierarchical RCU implementation.",
    "[    1.0] Run /init as init process",
    "[    5.0] cloud-init[300]: installing kernel-panic-tools (1.0)",
    "[  OK  ] Reached target emergency.target - Emergency Mode.",
    "web-3 login: ",
    "GRUB loading.",
    "[    9.0] reboot: Restarting system",
    "tiny: web-3 serves, image 1.0.0; root shell below, no password",
)


@pytest.mark.parametrize(("line", "pattern"), FATAL.items())
def test_lines_that_end_a_boot(line, pattern):
    found = find_pattern(line)
    assert (found.id, found.severity) == (pattern, Severity.FATAL)


@pytest.mark.parametrize(("line", "pattern"), WARNING.items())
def test_lines_that_are_worth_telling(line, pattern):
    found = find_pattern(line)
    assert (found.id, found.severity) == (pattern, Severity.WARNING)


@pytest.mark.parametrize("line", HARMLESS)
def test_lines_of_a_good_boot_match_nothing(line):
    assert find_pattern(line) is None


def test_a_log_is_followed_from_an_offset_in_pieces_of_any_size(tmp_path):
    path = tmp_path / "console.log"
    earlier = b"Kernel panic - not syncing: of the boot before\n"
    path.write_bytes(earlier)
    log = SerialLog(path, offset=len(earlier))
    assert log.poll() == []
    found = []
    with path.open("ab", buffering=0) as file:
        for byte in b"\x1b[0;32mone\x1b[0m\r\ntwo\r\n[ 1.0] Kernel panic - not syncing: x\r\nthree":
            file.write(bytes([byte]))
            found += log.poll()
    assert [finding.message for finding in found] == [
        "the kernel panicked: [ 1.0] Kernel panic - not syncing: x"
    ]
    assert log.tail() == ("one", "two", "[ 1.0] Kernel panic - not syncing: x", "three")
    assert log.tail(2) == ("[ 1.0] Kernel panic - not syncing: x", "three")


def test_a_prompt_without_newline_is_found_once(tmp_path):
    path = tmp_path / "console.log"
    log = SerialLog(path)
    path.write_bytes(b"Entering rescue mode...\ngrub rescue> ")
    assert log.poll() == []  # the line may still grow
    assert [finding.pattern.id for finding in log.poll()] == ["boot-loader"]
    assert log.poll() == []
    with path.open("ab") as file:
        file.write(b"\ngrub rescue> ")
    assert sum(len(log.poll()) for _ in range(3)) == 1


def test_a_missing_a_shortened_and_a_binary_log_do_no_harm(tmp_path):
    path = tmp_path / "console.log"
    log = SerialLog(path)
    assert (log.poll(), log.tail()) == ([], ())
    path.write_bytes(b"a" * 3_000_000 + b"\x00\xff\n")
    log.poll()
    assert len(log.tail()[0]) <= 4096
    path.write_bytes(b"anew\n")
    log.poll()
    assert log.tail(1) == ("anew",)


def test_the_tail_for_evidence_is_read_without_following(tmp_path):
    path = tmp_path / "console.log"
    assert read_tail(path) == ()
    path.write_text("".join(f"line {number}\n" for number in range(100_000)))
    assert read_tail(path, count=2) == ("line 99998", "line 99999")
    assert read_tail(path, offset=10**9, count=1) == ("line 99999",)


def test_text_is_cleaned_for_people():
    raw = b"\x1b[1;31mred\x1b[0m\x1b]0;title\x07\x1bM\ttab\x07\r\nbad \xff \x9b next\rover\n"
    assert clean_text(raw) == "red\ttab\nbad \ufffd \ufffd next\nover\n"
