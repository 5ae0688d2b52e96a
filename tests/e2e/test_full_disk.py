"""A state directory on a file system without room: commands say so, and nothing is lost."""

import contextlib

import pytest

from tests.e2e.harness import HEALTH, Lab, checksum, state_directory, wait_for, write_payload

pytestmark = pytest.mark.root

DATA = [{"name": "data", "size": "32MiB", "fileSystem": "ext4", "mountPoint": "/data"}]
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


class SmallDisk:
    """A file system of 112 MiB, which only those in the namespace of the private libvirtd see."""

    def __init__(self, libvirt, path) -> None:
        self.libvirt = libvirt
        self.path = path
        libvirt.run("mount", "-t", "tmpfs", "-o", "size=112m,mode=0711", "tmpfs", path)

    def give_back(self, amount):
        self.libvirt.run("truncate", "-s", f"-{amount}", self.path / "fill")

    @contextlib.contextmanager
    def filled(self, *, left):
        """Take all the room but `left` bytes."""
        self.libvirt.run("sh", "-c", 'cat /dev/zero >"$0" 2>/dev/null || :', self.path / "fill")
        self.give_back(left)
        try:
            yield
        finally:
            self.libvirt.run("rm", self.path / "fill")


@pytest.fixture(scope="module")
def disk(private_libvirt):
    with state_directory() as path:
        yield SmallDisk(private_libvirt, path)
        private_libvirt.run("umount", "--lazy", path)


@pytest.fixture(scope="module")
def small_lab(disk, tiny_files):
    """A lab on the small disk, with one healthy instance."""
    lab = Lab(disk.path, disk.libvirt.prefix)
    lab.specs = disk.path.parent / "specs"  # beside the mount, where the tests can write
    lab.specs.mkdir()
    lab.import_images(tiny_files)
    lab.apply("small", health=HEALTH, dataDisks=DATA)
    yield lab
    for row in lab.json("list"):
        lab.remove(row["name"])


def test_a_full_disk_is_named_and_the_same_commands_go_on_with_room(small_lab, disk):
    lab, more = small_lab, small_lab.spec("more", health=HEALTH, dataDisks=DATA)
    upgrade = ("upgrade", "start", "small", "--version", "1.1.0")
    before, boot = write_payload(lab, "small_0"), lab.ask("small_0", BOOT_ID)
    # Nothing; some pages, so that the store can be read; enough for the store, but not for disks.
    for left in (0, 2**16, 400 * 2**10):
        with disk.filled(left=left):
            for words in (("apply", more), upgrade):
                refused = lab.run(*words, expect=6)
                assert str(lab.state_dir) in refused.stderr
                assert "KiB" in refused.stderr
                assert "\nnext: " in refused.stderr
                assert "free space" in refused.stderr
            assert lab.domains("small") == ["small_0"]
        # The instance went on all the time.
        assert lab.ask("small_0", BOOT_ID) == boot
    lab.run("apply", more)
    assert lab.instances("more")["more_0"]["health"] == "Healthy"
    lab.run(*upgrade)
    assert lab.versions("small") == ["1.1.0"]
    assert checksum(lab, "small_0") == before
    lab.remove("more")


def test_a_guest_that_a_full_disk_has_paused_loses_nothing(small_lab, disk):
    lab, spec = small_lab, small_lab.specs / "small.yaml"
    lab.run("apply", spec)
    with disk.filled(left=2**16):
        # In the background, because nobody answers once it is paused.
        write = "(head -c 3000000 /dev/zero >/data/late; sync) >/dev/null 2>&1 </dev/null &"
        lab.ask("small_0", write)
        state = ("virsh", "-q", "-c", disk.libvirt.uri, "domstate", "small_0")
        wait_for(lambda: "paused" in disk.libvirt.run(*state), seconds=60, what="pause")
        disk.give_back(2**16)  # the store needs some, to be read
        assert lab.instances("small")["small_0"]["power"] == "Paused"
        failed = lab.run("apply", spec, expect=1)
        assert "ioerror" in failed.stderr
        assert "labctl instance restart small_0" in failed.stderr
    lab.run("instance", "restart", "small_0")
    assert lab.instances("small")["small_0"]["health"] == "Healthy"
    assert lab.ask("small_0", "stat -c %s /data/late") == "3000000"
