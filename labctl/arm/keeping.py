"""Goes through a document by the table of fields: what is kept, and what is refused."""

import re
from difflib import get_close_matches

from labctl.arm.errors import Document
from labctl.arm.faults import NOT_SUPPORTED, Faults
from labctl.arm.fields import Node, Treatment

# Whatever is called so is not kept, since it would be given back to everybody who may read.
_SECRET = re.compile(r"password|secret|sharedkey|accesskey|accountkey|token", re.IGNORECASE)

_MOST_COMPARED = 200


def keep(document: Document, node: Node, faults: Faults) -> Document:
    """What is to be given back; refused properties are noted."""
    kept = _keep(document, node, "", faults)
    return kept if isinstance(kept, dict) else {}


def keep_entry(entry: Document, node: Node, at: str, faults: Faults) -> Document:
    """The same for one entry of an array."""
    kept = _keep(entry, node, at, faults)
    return kept if isinstance(kept, dict) else {}


def _keep(value: object, node: Node, at: str, faults: Faults) -> object:
    row = node.row
    if row is not None and row.treatment is Treatment.KEPT:
        return value if row.path == "tags" else _strip(value)  # their names are the user's own
    if row is not None and row.treatment is Treatment.REFUSED:
        if _is_harmless(value, row.harmless):
            return value
        faults.note(at, f"is not supported in a lab. {row.why}", code=NOT_SUPPORTED)
        return None
    if row is not None:
        return None  # the spec has it, or nobody needs it
    if not node.below:
        return _strip(value)
    if "[]" in node.below:
        faults.list(value, at)
        return None
    found: Document = {}
    given = faults.mapping(value, at) or {}
    for key, each in given.items():
        path = f"{at}.{key}" if at else key
        below = node.below.get(key.lower())
        if below is None and _SECRET.search(key):
            faults.note(path, "is unknown, and may be a secret.", code=NOT_SUPPORTED)
            continue
        # To compare takes its time; nobody who mistypes writes hundreds of keys.
        meant = None if below or len(given) > _MOST_COMPARED else _find_meant(key, node)
        if meant is not None:
            faults.note(path, f"is unknown; did you mean {meant}?")
            continue
        kept = _keep(each, below or Node(), path, faults)
        if kept is not None and not (kept == {} and below is not None and below.row is None):
            found[key] = kept
    return found


def _find_meant(key: str, node: Node) -> str | None:
    """The property that was misspelt; merely kept, it would change nothing and nobody would say so.

    Only what is nearly the same: `upgradePolcy`, and not `zone` where there is `zones`.
    """
    word = key.lower()
    alike = [each for each in node.below if each[0] == word[:1] and abs(len(each) - len(word)) < 3]
    near = get_close_matches(word, alike, n=1, cutoff=0.9)
    return node.below[near[0]].name if near else None


def _is_harmless(value: object, harmless: tuple[object, ...]) -> bool:
    """Does it ask for nothing, or for what a lab does anyway?"""
    if value is None or value in ({}, []):
        return True
    text = str(value).lower() if isinstance(value, str | bool) else None
    return any(text == str(each).lower() for each in harmless)


def _strip(value: object) -> object:
    """Without what looks like a secret, at any depth."""
    if isinstance(value, dict):
        return {key: _strip(each) for key, each in value.items() if not _SECRET.search(key)}
    return [_strip(each) for each in value] if isinstance(value, list) else value
