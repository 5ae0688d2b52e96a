"""Packs the settings of an extension for the guest, where a shell without tools unpacks them."""

import json
from collections.abc import Mapping

from pydantic import JsonValue

# Nothing that `read`, `printf %b` or a shell takes for anything but itself.
_PLAIN = frozenset(b'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.,:/+=@{}[]"')


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


def _encode(text: str) -> str:
    return "".join(chr(byte) if byte in _PLAIN else f"\\0{byte:03o}" for byte in text.encode())
