"""The program `labctl`."""

import gc
import sys

# What a start makes are modules and classes, which stay: to search them for garbage again and again
# would take a tenth of the start.
_OBJECTS_BEFORE_SEARCH = 10_000


def main() -> None:
    """Run the command line and end the program with its exit code."""
    gc.set_threshold(_OBJECTS_BEFORE_SEARCH)
    from labctl.cli.app import main as run_command_line

    exit_code = run_command_line()
    gc.freeze()  # the same at the end: Python would look through everything once more
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
