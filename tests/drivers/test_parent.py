import subprocess
import sys

CHILD = (
    "import signal; from labctl.drivers.parent import end_with_parent; end_with_parent(); "
    "print('ready', flush=True); signal.pause()"
)
PARENT = (
    "import signal, subprocess, sys; "
    f"subprocess.Popen([sys.executable, '-c', {CHILD!r}], stderr=subprocess.DEVNULL); "
    "signal.pause()"
)


def test_a_program_ends_with_its_parent_even_when_that_is_killed():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline() == b"ready\n"
        parent.kill()
        # The child holds the pipe, too: it ends when both have.
        assert parent.stdout.read() == b""
