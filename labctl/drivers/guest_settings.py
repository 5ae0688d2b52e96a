"""Packs the settings of an extension for the guest, where a shell without tools unpacks them."""

import json
import re
from collections.abc import Mapping

from pydantic import JsonValue

# Nothing that `read`, `printf %b` or a shell takes for anything but itself.
_PLAIN = frozenset(b'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.,:/+=@{}[]"')
_OCTAL = re.compile(r"\\0([0-7]{3})")


def pack_settings(settings: Mapping[str, JsonValue], protected: Mapping[str, JsonValue]) -> bytes:
    r"""Pack lines `FILE CONTENT`; in the content, bytes are written as `\0ooo` where needed.

    Files are `settings.json`, `settings/NAME`, and the same for `protected`: text as it is, all
    else as JSON. Nothing at all when there are no settings.
    """
    if not settings and not protected:
        return b""
    lines = []
    for folder, values in (("settings", settings), ("protected", protected)):
        lines.append(f"{folder}.json {_encode(json.dumps(values))}")
        lines += [
            f"{folder}/{name} {_encode(value if isinstance(value, str) else json.dumps(value))}"
            for name, value in values.items()
        ]
    return "".join(f"{line}\n" for line in lines).encode()


def unpack_settings(packed: bytes) -> list[tuple[str, str]]:
    """Give back files and contents, for guests that have no shell to unpack them with."""
    found = []
    for line in packed.decode().splitlines():
        file, _, content = line.partition(" ")
        found.append((file, _OCTAL.sub(lambda match: chr(int(match[1], 8)), content)))
    return [(file, content.encode("latin-1").decode()) for file, content in found]


def _encode(text: str) -> str:
    return "".join(chr(byte) if byte in _PLAIN else f"\\0{byte:03o}" for byte in text.encode())
