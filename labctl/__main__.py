"""The program `labctl`."""

import sys

from labctl.cli.app import main as run_command_line


def main() -> None:
    """Run the command line and end the program with its exit code."""
    sys.exit(run_command_line())


if __name__ == "__main__":
    main()
