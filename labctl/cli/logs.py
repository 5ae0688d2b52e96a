"""Where log lines go: to stderr, with the level that suits who reads it."""

import logging
import sys
import time

from typing_extensions import override


def start_log(*, verbose: bool) -> None:
    """Send log lines of labctl to stderr.

    `verbose`: everything. Otherwise warnings on a terminal, where progress tells the story, and
    the story as well where nobody watches.
    """
    usual = logging.WARNING if sys.stderr.isatty() else logging.INFO
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler = _StderrHandler()
    handler.setFormatter(formatter)
    logger = logging.getLogger("labctl")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.DEBUG if verbose else usual)
    logger.propagate = False


class _StderrHandler(logging.Handler):
    """Looks stderr up for each line, since live progress replaces it for a while."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        """Write the line above a live table, if there is one."""
        print(self.format(record), file=sys.stderr)
