"""A lab for end-to-end tests: real labctl processes, real libvirt, real guests."""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
URI = "qemu:///system" if os.geteuid() == 0 else "qemu:///session"  # labctl's default
LABCTL = [sys.executable, "-m", "labctl"]
HEALTH = {"applicationHealth": {"protocol": "http", "port": 8080, "requestPath": "/health"}}


class Lab:
    """One state directory, used through the command line only."""

    def __init__(self, state_dir: Path, prefix: tuple[str, ...] = ()) -> None:
        self.state_dir = state_dir
        self.prefix = prefix
        self.env = {**os.environ, "PYTHONPATH": str(ROOT), "LABCTL_STATE_DIR": str(state_dir)}
        self.specs = state_dir / "specs"
        self.specs.mkdir(exist_ok=True)

    def command(self, *words: str) -> list[str]:
        return [*self.prefix, *LABCTL, *map(str, words)]

    def run(
        self, *words: object, expect: int | None = 0, env: dict[str, str] | None = None, stdin=None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*map(str, words)),
            capture_output=True,
            text=True,
            env={**self.env, **(env or {})},
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            timeout=800,
        )
        if expect is not None and done.returncode != expect:
            raise AssertionError(
                f"labctl {shlex.join(map(str, words))} ended with {done.returncode}, "
                f"expected {expect}\n--- stdout\n{done.stdout[-4000:]}\n"
                f"--- stderr\n{done.stderr[-4000:]}"
            )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def json(self, *words: object, expect: int = 0) -> Any:
        return json.loads(self.run(*words, "-o", "json", expect=expect).stdout)

    def spawn(self, *words: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*map(str, words)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**self.env, **(env or {})},
        )

    def spec(self, name: str, **values: Any) -> Path:
        """Write a spec of tiny instances; `values` are merged over the defaults."""
        document = {
            "name": name,
            "capacity": 1,
            "size": {"vcpus": 1, "memory": "128MiB"},
            "image": {"definition": "tiny", "version": "1.0.0"},
            "timeouts": {"boot": "90s", "customData": "60s", "shutdown": "20s"},
            "upgradePolicy": {"healthTimeout": "15s"},
            **values,
        }
        path = self.specs / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return path

    def apply(self, name: str, **values: Any) -> subprocess.CompletedProcess[str]:
        return self.run("apply", self.spec(name, **values))

    def ask(self, instance: str, script: str) -> str:
        """Run a script as root in a guest, over the verified SSH connection."""
        words = ("instance", "ssh", instance, "--", "sudo -n sh -c " + shlex.quote(script))
        return self.run(*words).stdout.strip()

    def instances(self, scale_set: str) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in self.json("instance", "list", scale_set)}

    def versions(self, scale_set: str) -> list[str]:
        return [row["imageVersion"] for row in self.instances(scale_set).values()]

    def domains(self, scale_set: str) -> list[str]:
        """What libvirt itself has."""
        done = subprocess.run(
            [*self.prefix, "virsh", "-c", URI, "list", "--all", "--name"],
            capture_output=True,
            text=True,
            check=True,
        )
        return sorted(n for n in done.stdout.split() if n.rsplit("_", 1)[0] == scale_set)

    def files(self, scale_set: str) -> list[str]:
        folder = self.state_dir / "scale-sets" / scale_set
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    def build(self, version: str, *options: str, definition: str = "tiny") -> None:
        recipe = ROOT / "images" / "tiny"
        words = ("--version", version, "--definition", definition, *options)
        self.run("image", "build", recipe, *words)

    def import_images(self, files: dict[str, Path]) -> None:
        """Take in images that were built elsewhere, by version."""
        for version, file in files.items():
            words = ("--definition", "tiny", "--version", version, "--publish")
            self.run("image", "import", file, *words)

    def remove(self, scale_set: str) -> None:
        """Tidy up after a test, data disks included."""
        self.run("delete", scale_set, "--yes", expect=None)
        listed = self.run("disk", "list", scale_set, "-o", "json", expect=None)
        for disk in json.loads(listed.stdout or "[]"):
            self.run("disk", "delete", disk["name"], "--yes", expect=None)


def write_payload(lab: Lab, instance: str, mount_point: str = "/data") -> str:
    """Put a random file on a data disk; returns its checksum."""
    path = f"{mount_point}/payload"
    lab.ask(instance, f"head -c 300000 /dev/urandom >{path}; sync")
    return checksum(lab, instance, mount_point)


def checksum(lab: Lab, instance: str, mount_point: str = "/data") -> str:
    return lab.ask(instance, f"sha256sum {mount_point}/payload").split()[0]


def wait_for(condition: Callable[[], Any], *, seconds: float, what: str) -> Any:
    """Look until `condition` gives something true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")


@contextlib.contextmanager
def state_directory(name: str = "lab") -> Iterator[Path]:
    """A directory that QEMU's own user may pass, unlike pytest's."""
    parent = Path(tempfile.mkdtemp(prefix="labctl-test-", dir="/var/tmp"))
    parent.chmod(0o711)
    path = parent / name
    path.mkdir(mode=0o711)
    try:
        yield path
    finally:
        shutil.rmtree(parent, ignore_errors=True)


def share_build_cache(state_dir: Path) -> None:
    """Let every lab of this machine build an image once; the cache is keyed by the recipe."""
    cache = Path("/var/tmp/labctl-test-cache")
    cache.mkdir(exist_ok=True)
    (state_dir / "cache").symlink_to(cache)
