"""`labctl serve` beside a test, and what the test asks of it."""

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

from tests.e2e.harness import Lab, wait_for

AUTOMATIC = {"automaticOSUpgradePolicy": {"enableAutomaticOSUpgrade": True}}
AT_ONCE = ("--first-within", "0s", "--rollout-after", "0s")
LONG = 400  # seconds; only a hang gets there


@contextlib.contextmanager
def serving(lab: Lab, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A running `labctl serve`; ended by SIGTERM, which must be clean."""
    with (lab.state_dir / "serve.log").open("a") as sink:
        daemon = subprocess.Popen(
            lab.command("serve", *(options or AT_ONCE)),
            stdout=sink,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=lab.env,
        )
    try:
        yield daemon
        if daemon.poll() is None:
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(timeout=120) == 0, read_log(lab)[-4000:]
            assert "Traceback" not in read_log(lab)
    finally:
        if daemon.poll() is None:
            daemon.kill()
            daemon.wait()


def read_log(lab: Lab) -> str:
    """What the daemons of this lab have said so far."""
    return (lab.state_dir / "serve.log").read_text()


def history(lab: Lab, name: str) -> list[dict[str, Any]]:
    return lab.json("upgrade", "history", name)


def wait_for_end(lab: Lab, name: str, count: int = 1) -> dict[str, Any]:
    """The newest of `count` upgrades, once it has ended."""

    def find():
        found = history(lab, name)
        ended = len(found) == count and found[0]["runningStatus"]["code"] not in {
            "RollingForward",
            "RollingBack",
        }
        return found[0] if ended else None

    return wait_for(find, seconds=LONG, what=f"upgrade of {name}\n{read_log(lab)[-3000:]}")


def events(lab: Lab, name: str) -> str:
    return lab.run("events", name).stdout
