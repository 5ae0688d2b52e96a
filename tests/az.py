"""The `az` command against a lab of real VMs, line by line: `make az` runs it.

azure-cli is installed into an environment of its own (`.az/`), once. A server of labctl is started
on 127.0.0.1 with a state directory of its own; az is told of nothing else, keeps its settings in a
directory of its own, and sends nothing to anybody else. Every line is printed with its result.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from tests.az_lines import AzLine, lines_of_the_page
from tests.az_stand import Stand, ensure_az, standing

REFUSED_BY_AZ = "refused by az itself"


class Session:
    """Runs lines of az and keeps account of them."""

    def __init__(self, python: Path, stand: Stand) -> None:
        self.python = python
        self.stand = stand
        self.passed = 0
        self.refused: list[str] = []
        self.failed: list[str] = []

    def run(self, line: AzLine) -> None:
        text = f"az {shlex.join(line.words)}".replace(self.stand.server.token, "TOKEN")
        if line.before is not None:
            line.before(self.stand)
        began = time.monotonic()
        try:
            done = subprocess.run(
                # The launcher `az` is a shell script whose first lines cannot hold every path.
                [str(self.python), "-Im", "azure.cli", *line.words],
                env=self.stand.az_env,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                timeout=line.seconds,
            )
        except subprocess.TimeoutExpired as hung:
            self.fail(text, line.seconds, f"no end within {line.seconds} s", hung.stderr or b"")
            return
        took = time.monotonic() - began
        if done.returncode != line.expect:
            problem = f"exit code {done.returncode}, expected {line.expect}"
            self.fail(text, took, problem, done.stdout[-2000:] + done.stderr[-4000:])
            return
        try:
            found = json.loads(done.stdout) if line.expect == 0 and done.stdout.strip() else None
            told = line.check(done.stderr if line.expect else found) if line.check else ""
        except (AssertionError, LookupError, TypeError, ValueError) as error:
            problem = f"the answer is not what it should be: {type(error).__name__}: {error}"
            self.fail(text, took, problem, done.stdout[-4000:] + done.stderr[-2000:])
            return
        if line.is_refused_by_az:
            self.refused.append(text)
        else:
            self.passed += 1
        word = REFUSED_BY_AZ if line.is_refused_by_az else "ok"
        print(f"{word:7} {took:5.1f} s  {text}", flush=True)
        for part in told.splitlines():
            print(f"                 {part}", flush=True)

    def fail(self, text: str, took: float, problem: str, output: str | bytes) -> None:
        self.failed.append(text)
        print(f"FAILED  {took:5.1f} s  {text}\n                 {problem}", flush=True)
        shown = output.decode(errors="replace") if isinstance(output, bytes) else output
        for part in shown.splitlines():
            print(f"                 | {part}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="WORDS", help="lines that begin like this, and log in")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    python = ensure_az()
    began = time.monotonic()
    with ExitStack() as stack:
        try:
            stand = stack.enter_context(standing())
            session = Session(python, stand)
            for line in lines_of_the_page(stand):
                wanted = " ".join(line.words).startswith(options.only or "")
                if wanted or line.words[0] in {"version", "cloud", "login"}:
                    session.run(line)
        except KeyboardInterrupt:
            print("az: interrupted; tidying up", file=sys.stderr, flush=True)
            return 130
        finally:
            # What was begun is ended, whoever is impatient: VMs would stay behind.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
    print(
        f"\naz: {session.passed} lines ok, {len(session.refused)} {REFUSED_BY_AZ}, "
        f"{len(session.failed)} failed, in {time.monotonic() - began:.0f} s"
    )
    for text in session.failed:
        print(f"  failed: {text}")
    return 1 if session.failed else 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
