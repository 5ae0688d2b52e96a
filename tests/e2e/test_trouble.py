"""What goes wrong around labctl: libvirtd dies, disks fill up, ports are taken, names are odd."""

import contextlib
import re
import socket
import subprocess
import threading
import time

import pytest

from tests.e2e.harness import (
    HEALTH,
    Lab,
    checksum,
    share_build_cache,
    state_directory,
    wait_for,
    write_payload,
)

DATA = [{"name": "data", "size": "32MiB", "fileSystem": "ext4", "mountPoint": "/data"}]


class Told:
    """A running labctl whose lines are read as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def await_line(self, text: str, *, seconds: float = 90) -> None:
        def is_told() -> bool:
            told = any(text in line for line in self._lines)
            assert told or self.process.poll() is None, "".join(self._lines)
            return told

        wait_for(is_told, seconds=seconds, what=f"a line with {text!r}")

    def end(self, *, seconds: float) -> str:
        """Wait for the end; returns everything that was told."""
        self.process.wait(seconds)
        self._reader.join()
        return "".join(self._lines)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                self._lines.append(line)


@contextlib.contextmanager
def told(lab, *words):
    told = Told(lab.spawn(*words))
    try:
        yield told
    finally:
        if told.process.poll() is None:
            told.process.kill()
        told.end(seconds=10)


@pytest.fixture
def libvirt(private_libvirt):
    """The private libvirtd; alive again at the end."""
    yield private_libvirt
    if not private_libvirt.is_alive:
        private_libvirt.start()


@pytest.mark.root
def test_apply_ends_when_libvirtd_dies_and_the_next_one_goes_on(private_lab, libvirt):
    lab = private_lab
    spec = lab.spec("lost", capacity=2, health=HEALTH, dataDisks=DATA)
    try:
        with told(lab, "apply", spec) as apply:
            apply.await_line("powered on")
            libvirt.kill()
            killed = time.monotonic()
            output = apply.end(seconds=60)
        assert apply.process.returncode == 6, output
        assert time.monotonic() - killed < 40, output
        assert_names_the_hypervisor(output)
        # Until it is back, nothing is promised and nothing changes.
        refused = lab.run("apply", spec, expect=6)
        assert_names_the_hypervisor(refused.stderr)
        libvirt.start()
        lab.run("apply", spec)
        assert {row["health"] for row in lab.instances("lost").values()} == {"Healthy"}
        assert lab.domains("lost") == ["lost_0", "lost_1"]
    finally:
        lab.remove("lost")


@pytest.mark.root
@pytest.mark.parametrize("moment", ["batch 1", "powered on with image 1.1.0"])
def test_an_upgrade_goes_on_where_libvirtd_died(private_lab, libvirt, moment):
    lab = private_lab
    lab.apply("cut", health=HEALTH, dataDisks=DATA)
    try:
        before = write_payload(lab, "cut_0")
        with told(lab, "upgrade", "start", "cut", "--version", "1.1.0") as upgrade:
            upgrade.await_line(moment)
            libvirt.kill()
            killed = time.monotonic()
            output = upgrade.end(seconds=60)
        assert upgrade.process.returncode == 6, output
        assert time.monotonic() - killed < 40, output
        assert_names_the_hypervisor(output)
        libvirt.start()
        lab.run("upgrade", "watch", "cut")
        assert lab.versions("cut") == ["1.1.0"]
        assert lab.json("upgrade", "status", "cut")["runningStatus"]["code"] == "Completed"
        assert checksum(lab, "cut_0") == before
        assert lab.domains("cut") == ["cut_0"]
    finally:
        lab.remove("cut")


@pytest.mark.root
def test_an_upgrade_survives_a_libvirtd_that_comes_back(private_lab, libvirt):
    lab = private_lab
    lab.apply("blink", health=HEALTH, dataDisks=DATA)
    try:
        before = write_payload(lab, "blink_0")
        with told(lab, "upgrade", "start", "blink", "--version", "1.1.0") as upgrade:
            for moment in ("batch 1", "powered on with image 1.1.0"):
                upgrade.await_line(moment)
                libvirt.kill()
                libvirt.start()
            output = upgrade.end(seconds=120)
        assert upgrade.process.returncode == 0, output
        assert "Traceback" not in output
        assert lab.versions("blink") == ["1.1.0"]
        assert checksum(lab, "blink_0") == before
        assert lab.domains("blink") == ["blink_0"]
    finally:
        lab.remove("blink")


def assert_names_the_hypervisor(output):
    assert "hypervisor 'qemu:///system' does not answer" in output
    assert "next: " in output
    assert "Traceback" not in output


ODD = """it's a "lab" & 100%, ünï = $HOME ${HOME}; \\"""
# Quotes of all kinds, backslashes, what shells and YAML expand, UTF-8, no line feed at the end.
CUSTOM = r"""#!/bin/sh
# \ \n "double" 'single' `back` $HOME ${X} %s %% {{ braces }} ünïcødé 漢字 🙂	tab
printf '%s\n' "a \"b\" \\ 'c' ü" >>/data/said"""


def test_every_path_and_name_may_hold_blanks_quotes_and_utf8():
    with state_directory(ODD) as path:
        share_build_cache(path)
        lab = Lab(path)
        lab.build("1.0.0", "--publish")
        lab.build("1.1.0", "--publish")
        first, second = """the "first" one's \\ $(reboot)""", "; sudo reboot; 'second' `halt` %s"
        folder = path / """my 'specs' & "more" ü"""
        folder.mkdir()
        spec = lab.spec(
            "odd",
            health=HEALTH,
            dataDisks=DATA,
            customData={"file": f"{folder.name}/custom data's.sh"},
            extensions=[
                {
                    "name": second,
                    "script": "#!/bin/sh\necho second >>/data/said\n",
                    "provisionAfterExtensions": [first],
                },
                {"name": first, "file": f"{folder.name}/ext ünï.sh"},
            ],
        )
        spec = spec.rename(path / "an odd 'spec' & more.yaml")
        (folder / "custom data's.sh").write_text(CUSTOM)
        (folder / "ext ünï.sh").write_text("#!/bin/sh\necho first >>/data/said\n")
        try:
            lab.run("apply", spec)
            assert "nothing to change" in lab.run("apply", spec).stdout
            once = [*"""a "b" \\ 'c' ü""".splitlines(), "first", "second"]
            assert lab.ask("odd_0", "cat /data/said").splitlines() == once
            # What the guest finds on its seed is the file, byte for byte.
            seed = "mount -t iso9660 -o ro /dev/vdb /mnt && cat /mnt/user-data; umount /mnt"
            assert lab.ask("odd_0", seed) == CUSTOM
            before = write_payload(lab, "odd_0")
            lab.run("upgrade", "start", "odd", "--version", "1.1.0")
            assert lab.versions("odd") == ["1.1.0"]
            assert checksum(lab, "odd_0") == before
            assert lab.ask("odd_0", "cat /data/said").splitlines() == once * 2
            assert first in lab.run("events", "odd").stdout
            assert "odd-0 serves, image 1.1.0" in lab.run("instance", "logs", "odd_0").stdout
            assert lab.json("instance", "show", "odd_0")["consoleLog"].startswith(str(path))
            lab.run("delete", "odd", "--yes")
            assert lab.files("odd") == ["odd_0.data-data.qcow2"]
            lab.run("disk", "delete", "odd_0/data", "--yes")
            assert lab.files("odd") == []
        finally:
            lab.remove("odd")
