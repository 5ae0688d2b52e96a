"""`osProfile` of a document: custom data, keys, Windows."""

from labctl.arm.custom_script import decode_text
from labctl.arm.faults import NOT_SUPPORTED
from labctl.arm.labctl_part import LABCTL
from labctl.arm.reader import Reader
from labctl.model.spec_rules import CUSTOM_DATA_LIMIT

OS = "properties.virtualMachineProfile.osProfile"
KEYS = f"{OS}.linuxConfiguration.ssh.publicKeys"


def read_os_profile(reader: Reader) -> None:
    """Read it into the spec."""
    _read_custom_data(reader)
    faults = reader.faults
    windows_at, linux_at = f"{OS}.windowsConfiguration", f"{OS}.linuxConfiguration"
    windows = faults.mapping(reader.at(windows_at), windows_at)
    linux = faults.mapping(reader.at(linux_at), linux_at)
    if windows is None:
        if reader.at(f"{OS}.adminPassword") is not None:
            faults.note(
                f"{OS}.adminPassword",
                "is not supported in a lab: labctl sets no passwords. Give public keys in "
                "linuxConfiguration.ssh.publicKeys.",
                code=NOT_SUPPORTED,
            )
        _read_keys(reader)
        for key in ("sshKeys", "windowsConfiguration"):
            if key in reader.labctl and reader.labctl[key] != reader.labctl_was.get(key):
                faults.note(f"{LABCTL}.{key}", f"is only for '{windows_at}'.")
        return
    if linux is not None:
        faults.note(windows_at, f"and '{linux_at}' cannot both be given.")
    path = f"{windows_at}.enableAutomaticUpdates"
    drivers = reader.labctl.get("windowsConfiguration")
    reader.put(("windowsConfiguration",), dict(drivers) if isinstance(drivers, dict) else {},
               windows_at)  # fmt: skip
    enabled = faults.flag(windows.get("enableAutomaticUpdates"), path)
    reader.put(("windowsConfiguration", "enableAutomaticUpdates"), enabled, path)
    reader.sources["windowsConfiguration", "drivers"] = f"{LABCTL}.windowsConfiguration.drivers"
    reader.put(("sshKeys",), reader.labctl.get("sshKeys"), f"{LABCTL}.sshKeys")


def _read_custom_data(reader: Reader) -> None:
    path = f"{OS}.customData"
    given = reader.faults.text(reader.at(path), path, is_secret=True)
    if given is None:
        # GET does not show it, so a PUT without it means no change.
        current = None if reader.current is None else reader.current.custom_data
        reader.put(("customData",), current, path)
        return
    reader.sources["customData",] = path
    reader.sources["customData", "inline"] = path
    text = decode_text(given, path, reader.faults, limit=CUSTOM_DATA_LIMIT)
    if text:
        reader.put(("customData", "inline"), text, path)


def _read_keys(reader: Reader) -> None:
    faults = reader.faults
    found: list[str] = []
    paths: dict[str, object] = {}
    for place, item in enumerate(faults.list(reader.at(KEYS), KEYS) or []):
        at = f"{KEYS}[{place}]"
        entry = faults.mapping(item, at) or {}
        key = faults.text(entry.get("keyData"), f"{at}.keyData", is_secret=True)
        path = faults.text(entry.get("path"), f"{at}.path")
        if key is None:
            faults.note(f"{at}.keyData", "is missing.")
            continue
        key = key.strip()
        reader.sources["sshKeys", len(found)] = f"{at}.keyData"
        found.append(key)
        if path is not None:
            paths[key] = path
    reader.put(("sshKeys",), found, KEYS)
    if paths:
        reader.keep(KEYS, paths)
