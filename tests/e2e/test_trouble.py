"""What goes wrong around labctl: libvirtd dies, disks fill up, ports are taken, names are odd."""

import contextlib
import socket
import subprocess
import threading
import time

import psutil
import pytest

from tests.e2e.harness import (
    HEALTH,
    URI,
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
            output = apply.end(seconds=60)
        assert apply.process.returncode == 6, output
        assert_gave_up_without(libvirt, output)
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
def test_an_upgrade_goes_on_where_libvirtd_died(private_lab, libvirt):
    lab = private_lab
    lab.apply("cut", health=HEALTH, dataDisks=DATA)
    try:
        before = write_payload(lab, "cut_0")
        with told(lab, "upgrade", "start", "cut", "--version", "1.1.0") as upgrade:
            upgrade.await_line("batch 1")
            libvirt.kill()
            output = upgrade.end(seconds=60)
        assert upgrade.process.returncode == 6, output
        assert_gave_up_without(libvirt, output)
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
                time.sleep(2)
                libvirt.start()
            output = upgrade.end(seconds=120)
        assert upgrade.process.returncode == 0, output
        assert "Traceback" not in output
        assert lab.versions("blink") == ["1.1.0"]
        assert checksum(lab, "blink_0") == before
        assert lab.domains("blink") == ["blink_0"]
        # Killed, as for want of memory, it is switched on again, and once.
        (emulator,) = emulators("blink_0")
        emulator.kill()
        wait_for(lambda: not emulators("blink_0"), seconds=30, what="the end of QEMU")
        told_again = lab.run("apply", lab.specs / "blink.yaml").stdout
        assert told_again.count("found off (crashed)") == 1, told_again
        assert lab.instances("blink")["blink_0"]["health"] == "Healthy"
        assert checksum(lab, "blink_0") == before
    finally:
        lab.remove("blink")


def emulators(name):
    begin = f"guest={name},"
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(word.startswith(begin) for word in process.info["cmdline"] or ())
    ]


def assert_gave_up_without(libvirt, output):
    """It ended while the daemon was away; it said so once, as the last thing, and tried no more."""
    assert not libvirt.is_alive
    assert_names_the_hypervisor(output)
    _, *said = output.split("labctl: hypervisor ")
    assert len(said) == 1, output
    first, *_, last = said[0].splitlines()
    assert first.endswith("does not answer"), output
    assert last.startswith("next: "), output


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


@pytest.fixture
def quiet(lab):
    """What must be the same after a command that was refused."""

    def look():
        files = [*lab.state_dir.glob("scale-sets/**/*"), *lab.state_dir.glob("images/*")]
        return lab.json("list"), lab.json("events"), lab.json("image", "list"), sorted(files)

    before = look()
    yield
    assert look() == before


MISTAKES = {
    "unknown key": (
        "name: bad\ncapacity: 1\nimage: {definition: tiny}\ncapasity: 2\n",
        "4:1",
        "capacity",
    ),
    "bad value": ("name: bad\ncapacity: many\nimage: {definition: tiny}\n", "2:11", "'many'"),
    "bad name": ("name: Bad\ncapacity: 1\nimage: {definition: tiny}\n", "1:7", "'Bad'"),
    "no YAML": ("name: bad\ncapacity: [1\nimage: x\n", "3:", ""),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_spec_is_shown_with_its_place(lab, quiet, mistake):
    text, place, word = MISTAKES[mistake]
    spec = lab.specs / f"{mistake}.yaml"
    spec.write_text(text)
    refused = lab.run("apply", spec, expect=2)
    assert f"{spec}:{place}" in refused.stderr
    assert word in refused.stderr


def test_what_is_not_there_is_named(lab, quiet, tmp_path):
    no_image = lab.spec("no-image", image={"definition": "tony"})
    no_version = lab.spec("no-version", image={"definition": "tiny", "version": "9.9.9"})
    missing = tmp_path / "no such"
    for words, code, said in (
        (["apply", missing], 2, "no such' does not exist"),
        (["apply", tmp_path], 2, "is a directory"),
        (["apply", no_image], 3, "'tony'"),
        (["apply", no_version], 3, "9.9.9"),
        (["image", "import", missing, "--definition=tiny", "--version=9.0.0"], 3, "no such"),
        (["show", "none"], 3, "'none'"),
        (["scale", "none", 2], 3, "'none'"),
        (["delete", "none", "--yes"], 3, "'none'"),
        (["upgrade", "start", "none"], 3, "'none'"),
        (["upgrade", "show", 4711], 3, "4711"),
        (["instance", "ssh", "none_0"], 3, "'none_0'"),
        (["instance", "stop", "none_0"], 3, "'none_0'"),
        (["why", "none_0"], 3, "'none_0'"),
        (["instance", "console", "none_0"], 4, "terminal"),
    ):
        refused = lab.run(*words, expect=code)
        assert said in refused.stderr, words
        assert "\nnext: " in refused.stderr, words


VIRSH = ["virsh", "-q", "-c", URI]
FOREIGN = """<domain type='qemu'><name>foreign_0</name><memory unit='MiB'>64</memory>
    <os><type machine='q35'>hvm</type></os></domain>"""


def test_a_foreign_domain_of_the_same_name_is_left_alone(lab):
    subprocess.run([*VIRSH, "define", "/dev/stdin"], input=FOREIGN, text=True, check=True)
    spec = lab.spec("foreign", health=HEALTH)
    try:
        before = subprocess.check_output([*VIRSH, "dumpxml", "foreign_0"])
        refused = lab.run("apply", spec, expect=1)
        assert "domain 'foreign_0' exists and is not labctl's" in refused.stderr
        assert "virsh domrename foreign_0" in lab.run("why", "foreign_0").stdout
        assert subprocess.check_output([*VIRSH, "dumpxml", "foreign_0"]) == before
    finally:
        subprocess.run([*VIRSH, "undefine", "foreign_0"], check=True)
    try:
        lab.run("apply", spec)
        assert lab.instances("foreign")["foreign_0"]["health"] == "Healthy"
    finally:
        lab.remove("foreign")


@contextlib.contextmanager
def opened_disk(disk):
    """Somebody looks into a disk, and holds its lock."""
    command = ["qemu-io", "-f", "qcow2", disk]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        process.stdin.write("length\n")
        process.stdin.flush()
        assert process.stdout.readline()  # so it is open
        yield
        process.stdin.write("quit\n")


def test_a_scale_set_is_deleted_beside_a_foreign_domain(lab):
    subprocess.run([*VIRSH, "define", "/dev/stdin"], input=FOREIGN, text=True, check=True)
    try:
        lab.run("apply", lab.spec("foreign"), expect=1)
        disk = lab.state_dir / "scale-sets" / "foreign" / "foreign_0.g1.qcow2"
        with opened_disk(disk):
            refused = lab.run("delete", "foreign", "--yes", expect=4)
            assert f"disk '{disk}' is in use" in refused.stderr
        lab.run("delete", "foreign", "--yes")
        assert lab.json("list") == []
        assert lab.files("foreign") == []
        assert lab.domains("foreign") == ["foreign_0"]
    finally:
        subprocess.run([*VIRSH, "undefine", "foreign_0"], check=True)


def test_a_port_that_another_program_took_is_replaced(lab):
    lab.apply("port", health=HEALTH)
    try:
        lab.run("instance", "stop", "port_0")
        old = lab.instances("port")["port_0"]["ssh"]
        with socket.socket() as stranger:
            host, _, number = old.rpartition(":")
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stranger.bind((host, int(number)))
            stranger.listen()
            started = lab.run("instance", "start", "port_0")
            assert "a port was taken by another program" in started.stdout
            row = lab.instances("port")["port_0"]
            assert row["health"] == "Healthy"
            assert row["ssh"] != old
            assert lab.ask("port_0", "hostname") == "port-0"
    finally:
        lab.remove("port")


def test_two_commands_at_once_make_one_scale_set_and_two_sets_do_not_wait_for_each_other(lab):
    twin, other = lab.spec("twin", health=HEALTH), lab.spec("other", health=HEALTH)
    try:
        with (
            told(lab, "apply", twin) as one,
            told(lab, "apply", twin) as two,
            told(lab, "apply", other) as three,
        ):
            outputs = [running.end(seconds=120) for running in (one, two, three)]
        codes = [running.process.returncode for running in (one, two, three)]
        assert codes == [0, 0, 0], outputs
        assert sum("works on it; watching" in output for output in outputs[:2]) == 1
        assert "watching" not in outputs[2]
        assert lab.domains("twin") == ["twin_0"]
        assert lab.domains("other") == ["other_0"]
        # The second one found nothing to ask for.
        asked = [event for event in lab.json("events", "twin") if event["kind"] == "request"]
        assert len(asked) == 1
    finally:
        lab.remove("twin")
        lab.remove("other")
