"""Where log lines go: to stderr, with the level that suits who reads it."""

import logging
import sys
import time
from collections.abc import MutableMapping
from typing import Any

from typing_extensions import override


def start_log(*, verbose: bool) -> None:
    """Send log lines of labctl to stderr, whether made by `logging` or by structlog.

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
    _join_structlog()


def _join_structlog() -> None:
    """Let structlog hand its lines to `logging`; by itself it prints them among the results."""
    import structlog

    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, _write_event],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _write_event(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> tuple[tuple[str, str], dict[str, Any]]:
    """Write `hypervisor is back uri='qemu:///system'`."""
    exception = event.pop("exc_info", None)
    text = str(event.pop("event", ""))
    words = [text, *(f"{key}={value!r}" for key, value in event.items())]
    return ("%s", " ".join(words)), {"exc_info": exception}


class _StderrHandler(logging.Handler):
    """Looks stderr up for each line, since live progress replaces it for a while."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        """Write the line above a live table, if there is one."""
        print(self.format(record), file=sys.stderr)
