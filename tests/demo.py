"""The main job on real VMs, told step by step: `make demo` runs it.

A scale set of five instances is provisioned, upgraded in five batches and then offered a broken
image, which is rolled back. The table at the end is read from the guests themselves.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LABCTL = ROOT / ".venv" / "bin" / "labctl"
SET = "demo"
PAYLOAD = "/data/payload.bin"

SPEC = """\
# yaml-language-server: $schema=labctl.schema.json   (made by: labctl schema)
name: demo
capacity: 5
size: {{vcpus: 1, memory: {memory}}}
image: {{definition: {image}, version: latest}}
dataDisks:
  - {{name: data, size: 64MiB, fileSystem: ext4, mountPoint: /data}}
customData:
  inline: |
    #!/bin/sh
    # Runs once on every new OS disk; the count is kept on the data disk.
    . /etc/labctl-image
    echo "$IMAGE_VERSION" >>/data/custom-data.log
extensions:
  - name: configure
    provisionAfterExtensions: [install]
    script: |
      #!/bin/sh
      . /etc/labctl-image
      echo "configure@$IMAGE_VERSION" >>/data/extensions.log
  - name: install
    script: |
      #!/bin/sh
      . /etc/labctl-image
      echo "install@$IMAGE_VERSION" >>/data/extensions.log
health:
  applicationHealth: {{protocol: http, port: 8080, requestPath: /health}}
upgradePolicy:
  healthTimeout: {health_timeout}
"""


@dataclass(slots=True)
class Evidence:
    """What one guest told, in the order of the demo."""

    versions: list[str] = field(default_factory=list)
    boot_ids: list[str] = field(default_factory=list)
    checksums: list[str] = field(default_factory=list)
    custom_data: str = ""
    extensions: str = ""
    downtime: str = "-"


class Demo:
    def __init__(self, image: str, state_dir: Path, work: Path) -> None:
        self.image = image
        self.state_dir = state_dir
        self.spec = work / "demo.yaml"
        self.began = time.monotonic()
        self.problems: list[str] = []

    def say(self, text: str) -> None:
        print(f"\n=== {time.monotonic() - self.began:4.0f} s  {text}", flush=True)

    def labctl(self, *words: str, expect: int = 0, quiet: bool = False) -> str:
        """Run labctl as a person would; its progress is shown, its result returned."""
        command = [str(LABCTL), "--state-dir", str(self.state_dir), *words]
        if not quiet:
            print(f"$ labctl {shlex.join(words)}", flush=True)
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE if quiet else None,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        if done.returncode != expect:
            sys.exit(
                f"demo: labctl {shlex.join(words)} ended with exit code {done.returncode}, "
                f"expected {expect}"
            )
        return done.stdout or ""

    def ask(self, instance: str, script: str) -> str:
        command = [str(LABCTL), "--state-dir", str(self.state_dir), "instance", "ssh", instance]
        done = subprocess.run(
            [*command, "--", "sudo -n sh -c " + shlex.quote(script)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode != 0:
            sys.exit(f"demo: {instance} did not answer: {done.stderr.strip()}")
        return done.stdout.strip()

    def build(self, version: str, *options: str) -> None:
        recipe = ROOT / "images" / self.image
        self.labctl("image", "build", str(recipe), "--version", version, "--publish", *options)

    def clean(self, why: str) -> None:
        names = [row["name"] for row in json.loads(self.labctl("list", "-o", "json", quiet=True))]
        if SET in names:
            self.say(why)
            self.labctl("delete", SET, "--yes")
        for disk in json.loads(self.labctl("disk", "list", SET, "-o", "json", quiet=True)):
            self.labctl("disk", "delete", disk["name"], "--yes", quiet=True)
        for row in json.loads(self.labctl("image", "list", "-o", "json", quiet=True)):
            if row["definition"] == self.image:
                self.labctl("image", "delete", f"{self.image}/{row['version']}", quiet=True)

    def look(self, evidence: dict[str, Evidence]) -> None:
        """Ask every guest for its version, boot and the checksum of its file."""

        def one(instance: str) -> tuple[str, list[str]]:
            answer = self.ask(
                instance,
                ". /etc/labctl-image; echo $IMAGE_VERSION; cat /proc/sys/kernel/random/boot_id; "
                f"sha256sum {PAYLOAD} | cut -c1-12; "
                "tr '\\n' ' ' </data/custom-data.log; echo; tr '\\n' ' ' </data/extensions.log",
            )
            return instance, answer.splitlines()

        with ThreadPoolExecutor(5) as pool:
            for instance, lines in pool.map(one, sorted(evidence)):
                found = evidence[instance]
                found.versions.append(lines[0])
                found.boot_ids.append(lines[1])
                found.checksums.append(lines[2])
                found.custom_data = lines[3].strip()
                found.extensions = lines[4].strip()

    def check(self, holds: bool, text: str) -> None:
        print(f"  {'ok ' if holds else 'NO '} {text}")
        if not holds:
            self.problems.append(text)

    def run(self) -> None:
        is_tiny = self.image == "tiny"
        self.spec.write_text(
            SPEC.format(
                image=self.image,
                memory="128MiB" if is_tiny else "512MiB",
                health_timeout="20s" if is_tiny else "60s",
            )
        )
        self.clean("an earlier demo is still here: deleting it")
        self.say("two versions of an image, and a broken one for later")
        self.build("1.0.0", "--greeting", "hello from 1.0.0")

        self.say("a scale set of five, with data disks, custom data, extensions and health agent")
        self.labctl("apply", str(self.spec))
        evidence = {f"{SET}_{ordinal}": Evidence() for ordinal in range(5)}
        for instance in evidence:
            self.ask(instance, f"head -c 1000000 /dev/urandom >{PAYLOAD} && sync")
        self.look(evidence)
        self.labctl("show", SET)

        self.say("a newer version is published; the plan, and the upgrade")
        self.build("1.1.0", "--greeting", "hello from 1.1.0")
        self.labctl("upgrade", "plan", SET)
        self.labctl("upgrade", "start", SET, "--rollback")
        upgrade = json.loads(self.labctl("upgrade", "status", SET, "-o", "json", quiet=True))
        for member in upgrade["members"]:
            evidence[member["instance"]].downtime = f"{member['downtime']:.1f} s"
        self.look(evidence)

        self.say("a version that boots and never becomes healthy")
        self.build("1.2.0", "--set", "fault=unhealthy", "--greeting", "broken")
        self.labctl("upgrade", "start", SET, "--rollback", expect=1)
        faulted = json.loads(self.labctl("upgrade", "status", SET, "-o", "json", quiet=True))
        self.look(evidence)
        self.labctl("upgrade", "history", SET)
        self.labctl("upgrade", "show", str(faulted["id"]))

        self.say("what the guests say")
        self.print_table(evidence)
        self.judge(evidence, upgrade, faulted)

    def print_table(self, evidence: dict[str, Evidence]) -> None:
        heads = ["instance", "image version", "boot id", "sha256 of the file on the data disk"]
        heads += ["custom data ran on", "downtime"]
        rows = [heads]
        for instance, found in evidence.items():
            rows.append(
                [
                    instance,
                    " > ".join(found.versions),
                    " > ".join(boot[:4] for boot in found.boot_ids),
                    " = ".join(found.checksums),
                    found.custom_data,
                    found.downtime,
                ]
            )
        widths = [max(len(row[place]) for row in rows) for place in range(len(heads))]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            print("  " + "  ".join(cells).rstrip())
        print("  extensions, in the order in which they ran:")
        for instance, found in evidence.items():
            print(f"    {instance}: {found.extensions}")

    def judge(self, evidence: dict[str, Evidence], upgrade: dict, faulted: dict) -> None:
        print()
        first = sorted(evidence)[0]
        moments = [e.versions for e in evidence.values()]
        self.check(
            all(v == ["1.0.0", "1.1.0", "1.1.0"] for v in moments),
            "every instance went 1.0.0 > 1.1.0, and none is left on the broken 1.2.0",
        )
        self.check(
            all(len(set(e.checksums)) == 1 for e in evidence.values()),
            "no byte on a data disk changed",
        )
        self.check(
            all(e.boot_ids[0] != e.boot_ids[1] for e in evidence.values()),
            "every instance was booted anew",
        )
        self.check(
            all(
                e.custom_data == ("1.0.0 1.1.0 1.2.0" if name == first else "1.0.0 1.1.0")
                for name, e in evidence.items()
            ),
            "custom data ran exactly once on every OS disk",
        )
        self.check(
            all(
                e.extensions.startswith(
                    "install@1.0.0 configure@1.0.0 install@1.1.0 configure@1.1.0"
                )
                for e in evidence.values()
            ),
            "extensions ran in order, once on every OS disk",
        )
        self.check(upgrade["batches"] == 5, "the upgrade took five batches of one")
        self.check(
            faulted["runningStatus"]["code"] == "Faulted" and faulted["batches"] == 1,
            "the broken version stopped after its first batch",
        )
        self.check(
            faulted["rollbackInfo"]["successfullyRolledbackInstanceCount"] == 1,
            f"{first} is healthy again on its previous OS disk",
        )


def default_state_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/labctl-demo")
    return Path.home() / ".local" / "state" / "labctl-demo"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", default="tiny", choices=["tiny", "debian-12", "debian-13"])
    parser.add_argument("--state-dir", type=Path, default=default_state_dir())
    parser.add_argument("--keep", action="store_true", help="leave the scale set running")
    options = parser.parse_args()
    options.state_dir.mkdir(parents=True, exist_ok=True, mode=0o711)
    demo = Demo(options.image, options.state_dir, options.state_dir)
    began = datetime.now().astimezone()
    demo.run()
    if options.keep:
        demo.say(f"left running: labctl --state-dir {options.state_dir} show {SET}")
    else:
        demo.clean("tidying up")
    seconds = (datetime.now().astimezone() - began).total_seconds()
    if demo.problems:
        sys.exit(f"demo: {len(demo.problems)} of the checks failed after {seconds:.0f} s")
    print(f"\ndemo: everything as promised, in {seconds:.0f} s")


if __name__ == "__main__":
    main()
