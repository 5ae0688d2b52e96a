"""`storageProfile` of a document: the image and the disks."""

import re

from labctl.arm.errors import Document
from labctl.arm.faults import show
from labctl.arm.fields import find_node
from labctl.arm.keeping import keep_entry
from labctl.arm.labctl_part import LABCTL
from labctl.arm.reader import Reader, child
from labctl.model.machine import DISK_NAME_PATTERN, GIB
from labctl.model.quantity import parse_size

STORAGE = "properties.virtualMachineProfile.storageProfile"
IMAGE, OS_DISK, DISKS = (f"{STORAGE}.{key}" for key in ("imageReference", "osDisk", "dataDisks"))
_REFERENCE_KEYS = ("id", "publisher", "offer", "sku", "version")


def read_storage(reader: Reader) -> None:
    """Read it into the spec."""
    _read_image(reader)
    path, exact_path = f"{OS_DISK}.diskSizeGB", f"{LABCTL}.osDisk.size"
    exact, exact_was = (child(part, "osDisk").get("size")
                        for part in (reader.labctl, reader.labctl_was))  # fmt: skip
    gibibytes = _read_size(reader, reader.at(path), path)
    size = choose_size(gibibytes, exact, reader.was(path), exact_was)
    reader.put(("osDisk", "size"), size, exact_path if size == exact else path)
    _read_disks(reader)


def _read_image(reader: Reader) -> None:
    faults = reader.faults
    reference = faults.mapping(reader.at(IMAGE), IMAGE)
    if not reference:
        faults.note(
            IMAGE,
            "is missing: the id of a gallery's image, or publisher, offer, sku and version.",
        )
        return
    for key in _REFERENCE_KEYS:
        faults.text(reference.get(key), f"{IMAGE}.{key}")
    if any(not isinstance(reference.get(key, ""), str) for key in _REFERENCE_KEYS):
        return
    wanted: Document = {key: reference[key] for key in _REFERENCE_KEYS if key in reference}
    reader.keep(IMAGE, wanted)
    was = _pick(reader.was(IMAGE))
    if reader.current is not None and wanted == was:
        reader.put(("image",), reader.current.image, IMAGE)
        return
    found = reader.look_up(lambda: reader.references.find_image(wanted, IMAGE))
    if isinstance(found, tuple):
        reader.put(("image",), {"definition": found[0], "version": found[1]}, IMAGE)


def _pick(value: object) -> Document | None:
    if not isinstance(value, dict):
        return None
    return {key: value[key] for key in _REFERENCE_KEYS if key in value}


def _read_disks(reader: Reader) -> None:
    faults = reader.faults
    node = find_node(f"{DISKS}[]")
    shown = reader.was(DISKS)
    sizes_was = {
        each.get("lun"): each.get("diskSizeGB")
        for each in (shown if isinstance(shown, list) else [])
        if isinstance(each, dict) and isinstance(each.get("lun"), int)
    }
    beside = _by_name(reader.labctl.get("dataDisks"))
    beside_was = _by_name(reader.labctl_was.get("dataDisks"))
    found: list[tuple[Document, str, int]] = []  # each with its path and its place in labctl's part
    kept: Document = {}
    luns: set[int] = set()
    for place, item in enumerate(faults.list(reader.at(DISKS), DISKS) or []):
        at = f"{DISKS}[{place}]"
        entry = faults.mapping(item, at) or {}
        lun = faults.number(entry.get("lun"), f"{at}.lun")
        if lun is None or not 0 <= lun < 64 or lun in luns:
            faults.note(f"{at}.lun", "must be a number from 0 to 63 that no other disk has.")
            continue
        luns.add(lun)
        given = faults.text(entry.get("name"), f"{at}.name")
        # Names of Azure are longer than a disk's serial number, by which the guest finds it.
        fits = given is not None and re.fullmatch(DISK_NAME_PATTERN, given)
        name = given if given is not None and fits else f"lun{lun}"
        spec: Document = {"name": name}
        number, more = next(
            ((at_, each) for at_, each in beside.items() if each.get("name") == name), (-1, {})
        )
        more_was = next((each for each in beside_was.values() if each.get("name") == name), {})
        gibibytes = _read_size(reader, entry.get("diskSizeGB"), f"{at}.diskSizeGB")
        size = choose_size(gibibytes, more.get("size"), sizes_was.get(lun), more_was.get("size"))
        if size is None:
            faults.note(f"{at}.diskSizeGB", "is missing.")
        else:
            spec["size"] = size
        spec |= {key: more[key] for key in ("fileSystem", "mountPoint") if key in more}
        found.append((spec, at, number))
        remembered = keep_entry(entry, node, at, faults) | {"lun": lun}
        kept[name] = remembered | ({"name": given} if given not in {None, name} else {})
    # Clients list disks in any order. Those that are there keep theirs: another would be no change
    # that anybody means, and yet a new model.
    order = [each.name for each in (reader.current.data_disks if reader.current else ())]
    found.sort(key=lambda each: (*order, each[0]["name"]).index(each[0]["name"]))
    for place, (_, at, number) in enumerate(found):
        here: tuple[str | int, ...] = ("dataDisks", place)
        reader.sources[here] = at
        reader.sources[*here, "size"] = f"{at}.diskSizeGB"
        for key in ("fileSystem", "mountPoint"):
            reader.sources[*here, key] = f"{LABCTL}.dataDisks[{number}].{key}"
    specs = [spec for spec, _, _ in found]
    reader.put(("dataDisks",), specs, DISKS)
    if kept:
        reader.keep(DISKS, kept)
    names = {spec["name"] for spec in specs}
    for number, each in beside.items():
        wanted = each.get("name")
        # What the client has just taken away is still told of in what it sends back.
        if wanted not in list(names) and each not in beside_was.values():
            faults.note(f"{LABCTL}.dataDisks[{number}].name", f"names no disk: {show(wanted)}.")


def _by_name(value: object) -> dict[int, Document]:
    entries = value if isinstance(value, list) else []
    return {place: each for place, each in enumerate(entries) if isinstance(each, dict)}


def _read_size(reader: Reader, value: object, target: str) -> int | None:
    number = reader.faults.number(value, target)
    if number is not None and not 1 <= number < 2**40:
        reader.faults.note(target, f"must be a number of GiB, not {show(value)}.")
        return None
    return number


def choose_size(
    gibibytes: int | None, exact: object, gibibytes_was: object, exact_was: object
) -> object:
    """The size in the spec's words: the exact one, unless the client changed only the GiB."""
    # Shown are 2 GiB and "1500MiB". PUT of 2 keeps 1500 MiB, PUT of 3 means 3 GiB.
    is_new = exact != exact_was
    if exact is None:
        return None if gibibytes is None else f"{gibibytes}GiB"
    if gibibytes is None:
        return exact if is_new else None
    try:
        fits = -(-parse_size(exact) // GIB) == gibibytes
    except ValueError:
        return exact  # the model explains
    if fits or (is_new and gibibytes == gibibytes_was):
        return exact
    return f"{gibibytes}GiB"
