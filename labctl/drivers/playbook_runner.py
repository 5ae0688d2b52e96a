"""Runs one prepared playbook to its end, apart from the controller that started it.

`python -m labctl.drivers.playbook_runner FOLDER`: FOLDER/command.json says what to run. A second
runner of the same folder does nothing; what Ansible has started holds the lock, too.
"""

import fcntl
import json
import os
import sys
import threading
from datetime import timedelta
from pathlib import Path

from labctl.drivers.command import run_in_group


def main(folder: Path) -> None:
    """Run it once; write `output` and, at the end, `exit`."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not _take(lock) or (folder / "exit").exists():
        return
    order = json.loads((folder / "command.json").read_text())
    code = run_in_group(
        order["arguments"],
        output=folder / "output",
        timeout=timedelta(seconds=order["seconds"]),
        environment=order["environment"],
        directory=Path(order["directory"]),
        keep_open=(lock,),
    )
    (folder / "variables.yml").unlink(missing_ok=True)  # secrets, should nobody ask any more
    part = folder / "exit.part"
    part.write_text(json.dumps({"code": code}))
    part.rename(folder / "exit")


def _take(lock: int) -> bool:
    # Whoever looks whether a runner is there holds the lock for a moment.
    pause = threading.Event()
    for _ in range(20):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pause.wait(0.1)
        else:
            return True
    return False


if __name__ == "__main__":
    os.umask(0o077)
    main(Path(sys.argv[1]))
