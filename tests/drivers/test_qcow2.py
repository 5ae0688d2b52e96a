import os
import struct
import subprocess

import pytest

from labctl.drivers import qcow2
from labctl.errors import InvalidError

pytestmark = pytest.mark.host


def _create(path, *options, size="8M"):
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", *options, os.fspath(path), size], check=True
    )
    return path


def _patch(path, offset, content):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-o", "compat=0.10"),
        ("-o", "compression_type=zstd"),
        ("-o", "cluster_size=4k"),
        ("-o", "extended_l2=on"),
        ("-o", "lazy_refcounts=on"),
    ],
)
def test_images_that_stand_for_themselves_are_accepted(tmp_path, options):
    header = qcow2.verify(_create(tmp_path / "a.qcow2", *options))
    assert header.virtual_size == 8 * 2**20


def test_a_backing_file_is_refused_before_any_tool_opens_the_image(tmp_path, monkeypatch):
    base = _create(tmp_path / "base.qcow2")
    overlay = _create(tmp_path / "a.qcow2", "-b", str(base), "-F", "qcow2")
    monkeypatch.setenv("PATH", "")  # no program can be found
    with pytest.raises(InvalidError, match="it needs a backing file"):
        qcow2.verify(overlay)


def test_a_backing_file_that_names_a_secret_of_the_host_is_refused(tmp_path):
    image = _create(tmp_path / "a.qcow2", "-u", "-b", "/etc/shadow", "-F", "raw")
    with pytest.raises(InvalidError, match="it needs a backing file"):
        qcow2.read_header(image)


def test_an_external_data_file_is_refused(tmp_path):
    image = _create(tmp_path / "a.qcow2", "-o", f"data_file={tmp_path / 'data'}")
    with pytest.raises(InvalidError, match="in another file"):
        qcow2.read_header(image)


def test_an_encrypted_image_is_refused(tmp_path):
    image = _create(tmp_path / "a.qcow2")
    # qemu-img measures the processor to make a real one, and fails where that is too busy.
    _patch(image, 32, struct.pack(">I", 2))  # crypt_method LUKS
    with pytest.raises(InvalidError, match="it is encrypted"):
        qcow2.read_header(image)


@pytest.mark.parametrize(
    ("bit", "fault"),
    [(0, "not closed properly"), (1, "marked as corrupt"), (17, "unknown features (0x20000)")],
)
def test_incompatible_features_are_refused(tmp_path, bit, fault):
    image = _create(tmp_path / "a.qcow2")
    _patch(image, 72, struct.pack(">Q", 1 << bit))
    with pytest.raises(InvalidError) as caught:
        qcow2.read_header(image)
    assert fault in caught.value.brief


def test_every_fault_is_told_at_once(tmp_path):
    image = _create(tmp_path / "a.qcow2")
    _patch(image, 4, struct.pack(">IQ", 4, 1024))
    with pytest.raises(InvalidError) as caught:
        qcow2.read_header(image)
    assert "format version is 4" in caught.value.brief
    assert "backing file" in caught.value.detail


@pytest.mark.parametrize("content", [b"", b"QFI\xfb", b"\0" * 512, b"MZ" + b"x" * 600])
def test_what_is_not_qcow2_is_told_to_be_raw_perhaps(tmp_path, content):
    file = tmp_path / "a.img"
    file.write_bytes(content)
    with pytest.raises(InvalidError, match="is not a qcow2 image") as caught:
        qcow2.read_header(file)
    assert "--format raw" in caught.value.hint


def test_damaged_tables_are_found(tmp_path):
    image = _create(tmp_path / "a.qcow2")
    subprocess.run(["qemu-io", "-c", "write 0 1M", str(image)], check=True, capture_output=True)
    qcow2.verify(image)
    (table,) = struct.unpack(">Q", image.read_bytes()[40:48])
    _patch(image, table, b"\x80\x00\x00\x00\x00\x00\x02\x01")
    with pytest.raises(InvalidError, match="is damaged"):
        qcow2.verify(image)


def test_a_file_shorter_than_its_tables_is_found(tmp_path):
    image = _create(tmp_path / "a.qcow2")
    subprocess.run(["qemu-io", "-c", "write 0 1M", str(image)], check=True, capture_output=True)
    with image.open("r+b") as file:
        file.truncate(200)
    with pytest.raises(InvalidError, match="is damaged"):
        qcow2.verify(image)


def test_errors_can_name_the_file_that_the_user_named(tmp_path):
    file = tmp_path / "copy"
    file.write_bytes(b"x" * 200)
    with pytest.raises(InvalidError, match=r"'my image\.qcow2' is not"):
        qcow2.read_header(file, name="my image.qcow2")
