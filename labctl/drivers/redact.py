"""Takes secrets out of texts that are kept: output of extensions, evidence."""

import json
from collections.abc import Iterable
from urllib.parse import quote

MASK = "[protected]"
_LEAST = 4  # characters; to replace each "1" would spoil a text and hide nothing


class Redactor:
    """Replaces exact secrets, also as they look in JSON, in URLs and line by line."""

    def __init__(self, secrets: Iterable[str]) -> None:
        wanted: set[str] = set()
        for secret in secrets:
            for text in (secret, *secret.splitlines()):
                for form in (text, text.strip(), json.dumps(text)[1:-1], quote(text, safe="")):
                    if len(form) >= _LEAST:
                        wanted.add(form)
        self._secrets = sorted(wanted, key=lambda text: (-len(text), text))

    def redact(self, text: str, *, is_cut: bool = False) -> str:
        """Replace every secret; with `is_cut` also the end of one at the beginning of the text."""
        if is_cut:
            text = self._redact_begin(text)
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text

    def _redact_begin(self, text: str) -> str:
        for secret in self._secrets:
            for start in range(1, len(secret) - _LEAST + 1):
                if text.startswith(secret[start:]):
                    return MASK + text[len(secret) - start :]
        return text
