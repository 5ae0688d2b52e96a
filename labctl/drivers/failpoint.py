"""Named places at which a test may kill the controller, to prove that the next one converges."""

import os
import signal
from pathlib import Path

_WISH = os.environ.get("LABCTL_FAILPOINT", "")  # "define:done" or "define:done@FILE"


def reach(name: str) -> None:
    """Die by SIGKILL here if LABCTL_FAILPOINT names this place; else do nothing.

    With `@FILE`, only if FILE does not exist yet; it is made first, so that the place kills once.
    """
    if not _WISH:
        return
    wished, _, marker = _WISH.partition("@")
    if wished != name:
        return
    if marker:
        if Path(marker).exists():
            return
        Path(marker).touch()
    os.kill(os.getpid(), signal.SIGKILL)
