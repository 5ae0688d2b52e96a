import fcntl
import hashlib
import multiprocessing
import os
import subprocess

import pytest

from labctl.drivers.blobs import (
    Format,
    admitting,
    delete_abandoned,
    ensure_deleted,
    find_digests,
    locked,
    verify_digest,
)
from labctl.errors import HostError, InvalidError, NotFoundError
from labctl.settings import Settings

pytestmark = pytest.mark.host


@pytest.fixture
def lab(tmp_path):
    return Settings(state_dir=tmp_path / "state dir's", uri="test:///default")


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "a 'quoted' image.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "4M"], check=True)
    subprocess.run(["qemu-io", "-c", "write -P 7 0 1M", str(path)], check=True, capture_output=True)
    return path


def _admit(lab, path, **options):
    with admitting(lab, path, **options) as blob:
        return blob


def test_a_file_is_kept_under_its_digest_read_only(lab, image):
    blob = _admit(lab, image)
    assert blob.digest == hashlib.sha256(image.read_bytes()).hexdigest()
    assert blob.path == lab.blobs_dir / f"{blob.digest}.qcow2"
    assert blob.path.read_bytes() == image.read_bytes()
    assert blob.path.stat().st_mode & 0o777 == 0o444
    assert lab.blobs_dir.stat().st_mode & 0o777 == 0o711
    assert (blob.virtual_size, blob.is_new) == (4 * 2**20, True)
    assert verify_digest(lab, blob.digest)


def test_the_same_file_again_is_not_new_and_leaves_nothing_behind(lab, image):
    first = _admit(lab, image)
    again = _admit(lab, image)
    assert (again.digest, again.is_new) == (first.digest, False)
    assert [path.name for path in lab.blobs_dir.iterdir()] == [first.path.name]


def test_a_refused_file_leaves_nothing_behind(lab, image, tmp_path):
    bad = tmp_path / "bad.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(image), "-F", "qcow2", str(bad)],
        check=True,
    )
    with pytest.raises(InvalidError, match="backing file"):
        _admit(lab, bad)
    assert find_digests(lab) == ()


def test_a_raw_disk_becomes_qcow2(lab, tmp_path):
    raw = tmp_path / "disk.raw"
    raw.write_bytes(b"boot" + bytes(2**20))
    blob = _admit(lab, raw, source_format=Format.RAW)
    back = tmp_path / "back.raw"
    subprocess.run(
        ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(blob.path), str(back)], check=True
    )
    assert back.read_bytes()[: 2**20] == raw.read_bytes()[: 2**20]


def test_missing_files_and_folders_are_told_apart(lab, tmp_path):
    with pytest.raises(NotFoundError, match="does not exist"):
        _admit(lab, tmp_path / "no.qcow2")
    with pytest.raises(InvalidError, match="not a regular file"):
        _admit(lab, tmp_path)


def test_a_read_only_file_of_ours_is_shared_on_request(lab, image):
    assert _admit(lab, image, may_link=True).path.stat().st_nlink == 1  # it is writable
    ensure_deleted(lab, find_digests(lab)[0])
    image.chmod(0o444)
    assert _admit(lab, image, may_link=True).path.samefile(image)


def test_a_full_disk_is_named_and_nothing_is_left(lab, image, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HostError, match="no room for image") as caught:
        _admit(lab, image)
    assert "MiB are free" in caught.value.detail
    assert list(lab.blobs_dir.iterdir()) == []


def _admit_in_process(lab, image, barrier, results):
    barrier.wait(20)
    with admitting(lab, image) as blob:
        results.put((blob.digest, blob.is_new))


def test_four_processes_importing_at_once_make_one_file(lab, image):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(4), context.Queue()
    processes = [
        context.Process(target=_admit_in_process, args=(lab, image, barrier, results))
        for _ in range(4)
    ]
    for process in processes:
        process.start()
    told = [results.get(timeout=40) for _ in processes]
    for process in processes:
        process.join(20)
        assert process.exitcode == 0
    assert {digest for digest, _ in told} == set(find_digests(lab))
    assert sorted(is_new for _, is_new in told) == [False, False, False, True]
    assert len(list(lab.blobs_dir.iterdir())) == 1


def _hold(lab, image, ready, release):
    with admitting(lab, image):
        ready.set()
        release.wait(30)


def test_a_file_cannot_be_deleted_while_its_import_is_open(lab, image):
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(lab, image, ready, release))
    process.start()
    assert ready.wait(30)
    (digest,) = find_digests(lab)
    lock = os.open(lab.locks_dir / f"image-{digest}.lock", os.O_RDWR)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(lock)
        release.set()
        process.join(20)
    with locked(lab, digest):
        assert ensure_deleted(lab, digest)
        assert not ensure_deleted(lab, digest)


def test_rests_of_a_killed_import_are_deleted_and_living_ones_are_not(lab, image):
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(lab, image, ready, release))
    process.start()
    assert ready.wait(30)
    assert delete_abandoned(lab) == ()
    process.kill()
    process.join(20)
    (rest,) = lab.blobs_dir.glob("import-*.part")
    assert delete_abandoned(lab) == (rest,)
    assert not rest.exists()
    assert len(find_digests(lab)) == 1
