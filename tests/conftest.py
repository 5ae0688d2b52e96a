"""What holds for all tests."""

import os
import signal

# A shell that starts `make test` in the background has it ignore Ctrl-C, and every command that a
# test starts and interrupts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests of live displays need a terminal that can move its cursor, whatever runs the tests.
if os.environ.get("TERM", "dumb") in {"dumb", "unknown"}:
    os.environ["TERM"] = "xterm"
