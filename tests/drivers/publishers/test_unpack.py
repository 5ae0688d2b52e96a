import bz2
import lzma

import pytest

from labctl.drivers.publishers.failure import PublisherError
from labctl.drivers.publishers.unpack import unpack
from labctl.model.publisher import Compression

CONTENT = b"image " * 100_000


def _unpack(tmp_path, packed, compression, **more):
    source = tmp_path / "packed"
    source.write_bytes(packed)
    return unpack(
        source, tmp_path / "out", compression, name="x.img", show=lambda *_: None, **more
    ).read_bytes()


def test_bzip2_and_xz_are_undone_and_others_are_left(tmp_path):
    assert _unpack(tmp_path, bz2.compress(CONTENT), Compression.BZIP2) == CONTENT
    assert _unpack(tmp_path, lzma.compress(CONTENT), Compression.XZ) == CONTENT
    assert _unpack(tmp_path, CONTENT, Compression.NONE) == CONTENT


@pytest.mark.parametrize("compression", [Compression.BZIP2, Compression.XZ])
@pytest.mark.parametrize("packed", [b"not packed", bz2.compress(CONTENT)[:50]])
def test_a_damaged_file_is_an_error(tmp_path, compression, packed):
    with pytest.raises(PublisherError, match=r"'x\.img' cannot be unpacked"):
        _unpack(tmp_path, packed, compression)


def test_a_small_file_cannot_fill_the_disk(tmp_path):
    with pytest.raises(PublisherError, match="unpacks to more than"):
        _unpack(tmp_path, lzma.compress(CONTENT), Compression.XZ, limit=2**16)
