"""Puts what a client sends over what the lab shows: a PUT of Azure's clients is a merge.

`az` leaves out of a PUT what it does not want to change, and no client sends secrets back.
"""

import re
from typing import cast

from labctl.arm.errors import Document, invalid
from labctl.arm.faults import Faults, check_content
from labctl.arm.fields import ROOT, Node

_VERSION = re.compile(r"/versions/[^/]+$", re.IGNORECASE)
_REMOVABLE = {"customdata", "protectedsettings"}  # GET does not show them, so absence says nothing


def merge_document(current: Document, body: object) -> Document:
    """The whole document that is wished for. Raises ArmError for what is none.

    Objects are merged and arrays replaced; null removes. Exceptions: tags are replaced; a data disk
    keeps what the entry with its `lun` does not say; the form of an image reference changes as a
    whole; null for customData or protectedSettings becomes an empty value, which removes them.
    """
    merged = _merge(canonicalise(current), canonicalise(body), ROOT)
    return cast("Document", _drop_nulls(merged, ROOT))


def canonicalise(document: object) -> Document:
    """The same with the names of the table in its own case: Azure's names are in any case."""
    if not isinstance(document, dict):
        raise invalid("The body must be a JSON object.", code="InvalidRequestContent")
    check_content(document)
    faults = Faults()
    found = _canonicalise(document, ROOT, "", faults)
    faults.check()
    return cast("Document", found)


def tidy(document: object) -> Document:
    """Canonical, and without nulls where null says nothing."""
    return cast("Document", _drop_nulls(canonicalise(document), ROOT))


def _canonicalise(value: object, node: Node, at: str, faults: Faults) -> object:
    if isinstance(value, list) and "[]" in node.below:
        inner = node.below["[]"]
        return [
            _canonicalise(each, inner, f"{at}[{place}]", faults) for place, each in enumerate(value)
        ]
    if not isinstance(value, dict) or not node.below:
        return value  # a leaf, or what this table does not look into
    found: Document = {}
    for key, each in value.items():
        known = node.below.get(str(key).lower())
        name = known.name if known else str(key)
        path = f"{at}.{name}" if at else name
        if name in found:
            faults.note(path, "is given twice, in different case.")
        found[name] = _canonicalise(each, known or Node(), path, faults)
    return found


def _merge(current: object, body: object, node: Node) -> object:
    if node.name == "dataDisks" and isinstance(current, list) and isinstance(body, list):
        return _merge_disks(current, body)
    if not isinstance(current, dict) or not isinstance(body, dict):
        return body
    if node.name in {"tags", "settings"}:
        return body
    if node.name == "imageReference":
        return _merge_reference(current, body)
    merged = dict(current)
    for key, value in body.items():
        merged[key] = _merge(current.get(key), value, node.below.get(key.lower(), Node()))
    return merged


def _merge_disks(current: list[object], body: list[object]) -> list[object]:
    shown = [each for each in current if isinstance(each, dict)]
    merged: list[object] = []
    for entry in body:
        same = [
            each
            for each in shown
            if isinstance(entry, dict)
            and (
                str(each.get("lun")) == str(entry.get("lun"))  # some clients send numbers as text
                if entry.get("lun") is not None
                else each.get("name") == entry.get("name")
            )
        ]
        # Another name at the same place is another disk, and takes nothing over.
        other = bool(same) and isinstance(entry, dict) and entry.get("name") not in {
            None, same[0].get("name"),
        }  # fmt: skip
        merged.append(_merge(same[0], entry, Node()) if same and not other else entry)
    return merged


def _merge_reference(current: Document, body: Document) -> Document:
    names = {key.lower() for key, value in body.items() if value is not None}
    if "id" in names or ({"publisher", "offer", "sku"} & names and "id" in current):
        return body
    identifier, version = current.get("id"), body.get("version")
    if isinstance(identifier, str) and isinstance(version, str):
        # `--set ...imageReference.version=latest` for an image of a gallery
        base = _VERSION.sub("", identifier)
        return {"id": base if version == "latest" else f"{base}/versions/{version}"}
    return current | body


def _drop_nulls(value: object, node: Node) -> object:
    if isinstance(value, list):
        inner = node.below.get("[]", Node())
        return [_drop_nulls(each, inner) for each in value]
    if not isinstance(value, dict):
        return value
    found: Document = {}
    for key, each in value.items():
        if each is not None:
            below = node.below.get(key.lower(), Node())
            found[key] = each if _is_opaque(key) else _drop_nulls(each, below)
        elif key.lower() in _REMOVABLE:
            found[key] = "" if key.lower() == "customdata" else {}
    return found


def _is_opaque(key: str) -> bool:
    return key in {"settings", "protectedSettings", "tags"}
