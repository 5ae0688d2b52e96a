"""Undoes bzip2 and xz, whose checksums were checked before."""

import bz2
import lzma
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import assert_never

from labctl.drivers.publishers.failure import PublisherError
from labctl.model.publisher import Compression

SUFFIX = ".unpacked"
_CHUNK = 2**20
LIMIT = 2**37  # bytes (128 GiB): a small file must not fill any disk


@contextmanager
def unpacking(
    source: Path,
    compression: Compression,
    *,
    name: str,
    show: Callable[[int, int | None], None],
) -> Iterator[Path]:
    """Have the disk image for a while, in the folder of `source`."""
    target = source.with_suffix(SUFFIX)
    try:
        yield unpack(source, target, compression, name=name, show=show)
    finally:
        target.unlink(missing_ok=True)


def unpack(
    source: Path,
    target: Path,
    compression: Compression,
    *,
    name: str,
    show: Callable[[int, int | None], None],
    limit: int = LIMIT,
) -> Path:
    """Write the disk image to `target`; without compression `source` is it. `name` is for errors.

    Raises PublisherError for a damaged file or one that grows too large.
    """
    match compression:
        case Compression.NONE:
            return source
        case Compression.BZIP2:
            unpacker: type[bz2.BZ2File] | type[lzma.LZMAFile] = bz2.BZ2File
        case Compression.XZ:
            unpacker = lzma.LZMAFile
        case _:
            assert_never(compression)
    written = 0
    try:
        with unpacker(source) as reader, target.open("wb") as writer:
            while piece := reader.read(_CHUNK):
                written += len(piece)
                if written > limit:
                    raise PublisherError(
                        f"{name!r} unpacks to more than {limit >> 20} MiB",
                        hint="nothing was imported",
                    )
                writer.write(piece)
                show(written, None)
    except (EOFError, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk, not the file
        raise PublisherError(
            f"{name!r} cannot be unpacked", detail=str(error), hint="nothing was imported"
        ) from error
    return target
