"""Loads a spec: reads the file, puts in the files that it names, explains every fault at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from labctl.cli.caller import may_reach_host
from labctl.cli.named_files import (
    SPEC_LIMIT,
    LocalFiles,
    NamedFiles,
    find_key_file,
    open_spec,
    refuse_host_access,
    refuse_places,
)
from labctl.cli.spec_faults import explain, label_of
from labctl.drivers.program import find_program_fault
from labctl.errors import InvalidError, LabError
from labctl.model.control import ApprovalPolicy
from labctl.model.hook import Hook
from labctl.model.spec import ScaleSetSpec
from labctl.model.spec_rules import CUSTOM_DATA_LIMIT, SCRIPT_LIMIT
from labctl.model.yaml_text import Document, Position, Step, Value, invalid, parse_yaml

_KEY_LIMIT = 16 * 1024  # bytes
_HINT = "`labctl example` prints a spec to start from, `labctl schema` every key"

Steps = tuple[Step, ...]


def load_spec(path: Path) -> ScaleSetSpec:
    """Load a spec from a file, or for `-` from stdin; files that it names are inlined.

    Raises InvalidError that lists every fault as `file:line:column: key: fault`.
    """
    content, source, files = open_spec(path)
    return _parse_spec(_decode_spec(content, source), source=source, files=files)


def parse_spec(text: str, *, source: str, base: Path) -> ScaleSetSpec:
    """Read a spec from text; files that it names are looked up below `base`.

    Raises InvalidError as `load_spec` does.
    """
    return _parse_spec(text, source=source, files=LocalFiles(base))


def _parse_spec(text: str, *, source: str, files: NamedFiles) -> ScaleSetSpec:
    document = parse_yaml(text, source)
    if not isinstance(document.value, dict):
        what = "is empty" if document.value is None else "must be a mapping of keys to values"
        raise invalid(source, [(document.mark_of(()), f"the spec {what}")], hint=_HINT)
    if not may_reach_host():
        refuse_host_access(document)
    resolver = _Resolver(document, files)
    value = resolver.resolve(document.value)
    faults = resolver.faults
    try:
        spec = ScaleSetSpec.model_validate(value, by_alias=True, by_name=False)
    except ValidationError as error:
        faults += explain(error, document, resolver.moved)
        raise invalid(source, faults, hint=_HINT) from error
    if not may_reach_host():
        from labctl.arm.host_access import list_own_addresses

        places = list_own_addresses(spec)
        refuse_places(document, places, "the spec has addresses of the server's host")
    faults += _find_unknown_zones(spec, document)
    faults += _find_absent_programs(spec, document)
    if faults:
        raise invalid(source, faults, hint=_HINT)
    return spec


def _find_unknown_zones(spec: ScaleSetSpec, document: Document) -> list[tuple[Position, str]]:
    """Time zones are looked up here, since the model reads no files."""
    if not spec.upgrade_policy.maintenance_windows:
        return []
    from labctl.controller.zones import find_zone_faults

    faults = []
    for place, fault in find_zone_faults(spec.upgrade_policy.maintenance_windows):
        at: Steps = ("upgradePolicy", "maintenanceWindows", place, "timeZone")
        faults.append((document.mark_of(at), f"{label_of(at)}: {fault}"))
    return faults


def _find_absent_programs(spec: ScaleSetSpec, document: Document) -> list[tuple[Position, str]]:
    """Programs are looked up here, since the model reads no files."""
    policy = spec.upgrade_policy
    named: list[tuple[Steps, ApprovalPolicy | Hook | None]] = [
        (("upgradePolicy", "approval"), policy.approval),
        (("upgradePolicy", "hooks", "drain"), policy.hooks.drain),
        (("upgradePolicy", "hooks", "undrain"), policy.hooks.undrain),
    ]
    faults = []
    for steps, part in named:
        command = None if part is None else part.command
        fault = None if command is None else find_program_fault(command[0])
        if fault is not None:
            at: Steps = (*steps, "command", 0)
            faults.append((document.mark_of(at), f"{label_of(at)}: {fault}"))
    return faults


class _Resolver:
    """Puts the contents of named files in the place of their names."""

    def __init__(self, document: Document, files: NamedFiles) -> None:
        self.faults: list[tuple[Position, str]] = []
        self.moved: dict[Steps, Steps] = {}  # where a value is now: where it was written
        self._document = document
        self._files = files

    def resolve(self, spec: Mapping[str, Value]) -> dict[str, Any]:
        """Give back a copy of `spec`; what cannot be read is a fault and stays a placeholder."""
        copy: dict[str, Any] = dict(spec)
        custom_data = spec.get("customData")
        if isinstance(custom_data, dict):
            copy["customData"] = self._inline(
                custom_data, "inline", ("customData",), CUSTOM_DATA_LIMIT
            )
        extensions = spec.get("extensions")
        if isinstance(extensions, list):
            copy["extensions"] = [
                self._resolve_extension(extension, ("extensions", place))
                if isinstance(extension, dict)
                else extension
                for place, extension in enumerate(extensions)
            ]
        self._resolve_secrets(copy)
        keys = spec.get("sshKeys")
        if isinstance(keys, list):
            found = [self._read_key(key, ("sshKeys", place)) for place, key in enumerate(keys)]
            copy["sshKeys"] = [key for key in found if key is not None]
            for place, was in enumerate(at for at, key in enumerate(found) if key is not None):
                self.moved["sshKeys", place] = ("sshKeys", was)
        return copy

    def _inline(self, part: dict[str, Value], key: str, at: Steps, limit: int) -> dict[str, Value]:
        name = part.get("file")
        if not isinstance(name, str) or key in part:
            return part  # nothing to read, or a fault that the model explains
        rest = {other: value for other, value in part.items() if other != "file"}
        self.moved[(*at, key)] = (*at, "file")
        # The placeholder keeps the model from complaining about what follows from the first fault.
        return rest | {key: self._read(name, (*at, "file"), limit) or "unreadable"}

    def _resolve_extension(self, extension: dict[str, Value], at: Steps) -> dict[str, Any]:
        part: dict[str, Any] = dict(self._inline(extension, "script", at, SCRIPT_LIMIT))
        playbook = part.get("playbook")
        if isinstance(playbook, str):
            # Not read here: it may name roles and files beside it. So it stays where it is.
            path = self._find(playbook, (*at, "playbook"))
            if path is not None and not path.is_file():
                where = f"looked for {str(path)!r}"
                self._note((*at, "playbook"), f"file {playbook!r} does not exist; {where}")
            part["playbook"] = str(path)
        file = part.get("protectedSettingsFile")
        if isinstance(file, str) and "protectedSettings" not in part:
            place = (*at, "protectedSettingsFile")
            del part["protectedSettingsFile"]
            self.moved[*at, "protectedSettings"] = place
            try:
                part["protectedSettings"] = self._files.read_protected(file)
            except LabError as error:
                self._note(place, error.brief)
        return part

    def _resolve_secrets(self, copy: dict[str, Any]) -> None:
        """Secret files of webhooks stay where they are: each is read when it is needed."""
        receivers = copy.get("notifications")
        if isinstance(receivers, list):
            copy["notifications"] = [
                self._resolve_secret(each, ("notifications", place))
                for place, each in enumerate(receivers)
            ]
        policy = copy.get("upgradePolicy")
        approval = policy.get("approval") if isinstance(policy, dict) else None
        if isinstance(policy, dict) and isinstance(approval, dict) and "webhook" in approval:
            at = ("upgradePolicy", "approval", "webhook")
            webhook = self._resolve_secret(approval["webhook"], at)
            copy["upgradePolicy"] = {**policy, "approval": {**approval, "webhook": webhook}}

    def _resolve_secret(self, webhook: Value, at: Steps) -> Value:
        file = webhook.get("secretFile") if isinstance(webhook, dict) else None
        if not isinstance(webhook, dict) or not isinstance(file, str):
            return webhook
        from labctl.drivers.webhook import read_secret

        path = self._find(file, (*at, "secretFile"))
        try:
            if path is not None:
                read_secret(path)
        except LabError as error:
            self._note((*at, "secretFile"), error.brief)
        return webhook | {"secretFile": str(path)}

    def _find(self, name: str, at: Steps) -> Path | None:
        """The whole path of a named file; None after noting a name that cannot be one."""
        try:
            return self._files.find(name)
        except InvalidError as error:
            self._note(at, error.brief)
            return None

    def _note(self, at: Steps, fault: str) -> None:
        self.faults.append((self._document.mark_of(at), f"{label_of(at)}: {fault}"))

    def _read_key(self, key: Value, at: Steps) -> Value:
        if not isinstance(key, str):
            return key
        name = find_key_file(key)
        if name is None:
            return key.strip()
        text = self._read(name, at, _KEY_LIMIT)
        return None if text is None else text.strip()

    def _read(self, name: str, at: Steps, limit: int) -> str | None:
        """Read a text file; None after noting a fault."""
        try:
            content = self._files.read(name, limit)
        except InvalidError as error:
            self._note(at, error.brief)
            return None
        if len(content) > limit:
            fault = f"file {name!r} has more than {limit} bytes"
        elif b"\0" in content:
            fault = f"file {name!r} is not a text file"
        else:
            try:
                return content.decode("utf-8-sig")  # Notepad's mark would be the first character
            except UnicodeDecodeError:
                fault = f"file {name!r} is not UTF-8 text"
        self._note(at, fault)
        return None


def _decode_spec(content: bytes, source: str) -> str:
    if len(content) > SPEC_LIMIT:
        raise InvalidError(
            f"spec {source!r} has more than {SPEC_LIMIT // 2**20} MiB",
            hint="put custom data and scripts in files of their own: `file: NAME`",
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidError(
            f"spec {source!r} is not UTF-8 text",
            detail=f"byte 0x{content[error.start]:02x} in line {line}",
            hint="save it as UTF-8",
        ) from error
