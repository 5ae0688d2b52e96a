"""What holds for all tests."""

import os
import signal

from hypothesis import settings

# A shell that starts `make test` in the background has it ignore Ctrl-C, and every command that a
# test starts and interrupts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests of live displays need a terminal that can move its cursor, whatever runs the tests.
if os.environ.get("TERM", "dumb") in {"dumb", "unknown"}:
    os.environ["TERM"] = "xterm"

# The same examples for everybody, so that a red run means that a change did it. New ones are looked
# for on purpose: HYPOTHESIS_PROFILE=nightly, at random and many more.
settings.register_profile("dev", max_examples=100, derandomize=True, deadline=None)
settings.register_profile("ci", max_examples=500, derandomize=True, deadline=None)
settings.register_profile("nightly", max_examples=5000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
