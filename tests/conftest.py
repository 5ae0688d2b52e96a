"""What holds for all tests."""

import signal

# A shell that starts `make test` in the background has it ignore Ctrl-C, and every command that a
# test starts and interrupts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
