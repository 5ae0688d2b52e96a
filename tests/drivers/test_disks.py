"""Disk files are made once, complete or not at all; data disks stay."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from labctl.drivers.disks import (
    DataDeletionConsent,
    DataDisk,
    OsGenerationFiles,
    data_disk_path,
    destroy_data_disk,
    discard_os_generation,
    ensure_data_disk,
    ensure_overlay,
    list_orphans,
    os_generation_files,
)
from labctl.errors import HostError, InvalidError, RefusedError

pytestmark = pytest.mark.host

MIB = 2**20


def qemu_info(path):
    return json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", path]))


def make_base(directory, size=4 * MIB, name="base.qcow2"):
    path = directory / name
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(size)], check=True)
    return path


@pytest.fixture
def set_dir(tmp_path) -> Path:
    return tmp_path / 'it\'s "the", lab & more' / "web"


@pytest.fixture
def base(tmp_path) -> Path:
    return make_base(tmp_path)


def data_disk(set_dir, size=8 * MIB):
    path = data_disk_path(set_dir, "web_3", "db")
    return DataDisk(path=path, name="db", serial="data-db", size=size)


def test_an_overlay_is_private_stands_on_its_base_and_is_made_once(set_dir, base):
    files = os_generation_files(set_dir, "web_3", 2)
    assert ensure_overlay(files, base, 16 * MIB)
    before = files.overlay.stat()
    assert not ensure_overlay(files, base, 16 * MIB)
    after = files.overlay.stat()  # whole stats differ by the time of the last read
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    info = qemu_info(files.overlay)
    assert (info["virtual-size"], info["backing-filename"]) == (16 * MIB, str(base))
    assert info["backing-filename-format"] == "qcow2"
    assert stat.S_IMODE(before.st_mode) == 0o600
    assert stat.S_IMODE(set_dir.stat().st_mode) == 0o711
    assert [path.name for path in set_dir.iterdir()] == ["web_3.g2.qcow2"]


def test_an_overlay_has_the_size_of_its_base_unless_told(set_dir, base):
    files = os_generation_files(set_dir, "web_3", 1)
    ensure_overlay(files, base, None)
    assert qemu_info(files.overlay)["virtual-size"] == 4 * MIB


def test_an_overlay_smaller_than_its_image_is_refused(set_dir, base):
    with pytest.raises(InvalidError, match="smaller than its image"):
        ensure_overlay(os_generation_files(set_dir, "web_3", 1), base, MIB)


def test_an_overlay_on_another_base_is_left_and_reported(set_dir, base, tmp_path):
    files = os_generation_files(set_dir, "web_3", 1)
    ensure_overlay(files, base, None)
    before = files.overlay.read_bytes()
    other = make_base(tmp_path, name="other.qcow2")
    with pytest.raises(RefusedError, match="not the one to make"):
        ensure_overlay(files, other, None)
    assert files.overlay.read_bytes() == before


def test_a_missing_image_is_named(set_dir, tmp_path):
    with pytest.raises(HostError, match=r"gone\.qcow2"):
        ensure_overlay(os_generation_files(set_dir, "web_3", 1), tmp_path / "gone.qcow2", None)


def test_what_a_dead_controller_left_half_made_is_made_anew(set_dir, base):
    files = os_generation_files(set_dir, "web_3", 1)
    set_dir.mkdir(parents=True)
    (set_dir / "web_3.g1.qcow2.part").write_bytes(b"half")
    assert ensure_overlay(files, base, None)
    assert [path.name for path in set_dir.iterdir()] == ["web_3.g1.qcow2"]


@pytest.mark.parametrize(
    "name",
    ["web_3.data-db.qcow2", "web_3.qcow2", "web_3.console.log", "base.qcow2", "web_3.g1.qcow2.bak"],
)
def test_nothing_but_an_os_generation_can_be_described_for_deletion(set_dir, name):
    with pytest.raises(RefusedError):
        OsGenerationFiles(overlay=set_dir / name, seed=set_dir / "web_3.g1.iso")


def test_files_of_two_generations_cannot_be_described_as_one(set_dir):
    with pytest.raises(RefusedError):
        OsGenerationFiles(overlay=set_dir / "web_3.g1.qcow2", seed=set_dir / "web_3.g2.iso")


def test_discarding_takes_a_generation_and_nothing_else(set_dir, base):
    for generation in (1, 2):
        files = os_generation_files(set_dir, "web_3", generation, has_nvram=True)
        ensure_overlay(files, base, None)
        files.seed.write_bytes(b"seed")
        assert files.nvram is not None
        files.nvram.write_bytes(b"nvram")
        assert files.ignition is not None
        files.ignition.write_bytes(b"{}")
    ensure_data_disk(data_disk(set_dir))
    files = os_generation_files(set_dir, "web_3", 1, has_nvram=True)
    assert [discard_os_generation(files) for _ in range(2)] == [True, False]
    assert sorted(path.name for path in set_dir.iterdir()) == [
        "web_3.data-db.qcow2",
        "web_3.g2.ign",
        "web_3.g2.iso",
        "web_3.g2.nvram",
        "web_3.g2.qcow2",
    ]
    assert base.exists()


def test_a_data_disk_passed_for_deletion_without_type_checks_stays(set_dir):
    disk = data_disk(set_dir)
    ensure_data_disk(disk)
    with pytest.raises(TypeError):
        discard_os_generation(disk)
    assert disk.path.exists()


def test_orphans_are_generations_that_nobody_knows(set_dir, base):
    known = os_generation_files(set_dir, "web_3", 2)
    for generation in (1, 2):
        ensure_overlay(os_generation_files(set_dir, "web_3", generation), base, None)
    (set_dir / "web_4.g7.iso.part").write_bytes(b"half")
    (set_dir / "web_3.console.log").write_bytes(b"log")
    ensure_data_disk(data_disk(set_dir))
    orphans = list_orphans(set_dir, [known])
    assert orphans == (
        os_generation_files(set_dir, "web_3", 1),
        os_generation_files(set_dir, "web_4", 7),
    )
    for files in orphans:
        assert discard_os_generation(files)
    assert list_orphans(set_dir, [known]) == ()
    assert list_orphans(set_dir / "none", []) == ()


def test_a_data_disk_is_made_once_and_never_touched_again(set_dir):
    disk = data_disk(set_dir)
    assert ensure_data_disk(disk)
    disk.path.write_bytes(disk.path.read_bytes() + b"precious")
    before = (disk.path.read_bytes(), disk.path.stat())
    assert not ensure_data_disk(disk)
    assert (disk.path.read_bytes(), disk.path.stat().st_mtime_ns) == (
        before[0],
        before[1].st_mtime_ns,
    )
    assert stat.S_IMODE(before[1].st_mode) == 0o600
    assert [path.name for path in set_dir.iterdir()] == ["web_3.data-db.qcow2"]


def test_a_data_disk_of_another_size_is_refused_and_left(set_dir):
    ensure_data_disk(data_disk(set_dir, size=8 * MIB))
    before = data_disk(set_dir).path.read_bytes()
    with pytest.raises(RefusedError, match="8388608 bytes, the spec says 16777216"):
        ensure_data_disk(data_disk(set_dir, size=16 * MIB))
    assert data_disk(set_dir).path.read_bytes() == before


def test_a_data_disk_goes_only_when_it_is_named(set_dir):
    disk = data_disk(set_dir)
    ensure_data_disk(disk)
    with pytest.raises(RefusedError, match="nobody asked"):
        destroy_data_disk(disk, DataDeletionConsent(file_names=frozenset({"web_4.data-db.qcow2"})))
    assert disk.path.exists()
    consent = DataDeletionConsent(file_names=frozenset({"web_3.data-db.qcow2"}))
    assert [destroy_data_disk(disk, consent) for _ in range(2)] == [True, False]


def test_a_disk_that_qemu_has_open_is_not_deleted(set_dir, base):
    files = os_generation_files(set_dir, "web_3", 1)
    ensure_overlay(files, base, None)
    with subprocess.Popen(
        ["qemu-io", "-f", "qcow2", files.overlay], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b"length\n")
        holder.stdin.flush()
        holder.stdout.readline()
        with pytest.raises(RefusedError, match="in use"):
            discard_os_generation(files)
        holder.stdin.close()
    assert discard_os_generation(files)


@pytest.fixture
def full_dir(tmp_path):
    path = tmp_path / "full"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", path], check=True)
    (path / "filler").write_bytes(bytes(60 * 1024))
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.mark.root
def test_a_full_file_system_is_named_with_its_free_space_and_nothing_is_left(full_dir, base):
    files = os_generation_files(full_dir, "web_3", 1)
    for effect in (
        lambda: ensure_overlay(files, base, None),
        lambda: ensure_data_disk(data_disk(full_dir)),
    ):
        with pytest.raises(HostError, match="no space left") as caught:
            effect()
        assert str(full_dir) in caught.value.brief
        assert "needed: 1024 KiB" in caught.value.detail
        assert [path.name for path in full_dir.iterdir()] == ["filler"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_may_not_be_written_is_named(tmp_path, base):
    tmp_path.chmod(0o500)
    with pytest.raises(HostError, match="cannot write"):
        ensure_overlay(os_generation_files(tmp_path / "web", "web_3", 1), base, None)
    tmp_path.chmod(0o700)
