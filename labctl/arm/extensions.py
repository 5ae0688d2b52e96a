"""Extensions of a scale set as Azure writes them, and those of the spec."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from urllib.parse import urlsplit

from labctl.arm import application_health, custom_script
from labctl.arm.errors import Document
from labctl.arm.faults import NOT_SUPPORTED, Faults, show
from labctl.arm.fields import find_node
from labctl.arm.keeping import keep_entry
from labctl.model.extension_rules import mask
from labctl.model.quantity import format_duration
from labctl.model.setup import Extension
from labctl.model.spec import ScaleSetSpec

EXTENSIONS = "properties.virtualMachineProfile.extensionProfile.extensions"
PUBLISHER = "labctl"
HEALTH_NAME = "HealthExtension"
_KEPT_OWN = ("publisher", "type", "typeHandlerVersion", "provisionAfterExtensions")
_KEPT_FORM = (*_KEPT_OWN, "settings")
_COMMON = ("settings", "timeout")
_OWN_KEYS = {
    "script": ("script", *_COMMON),
    "url": ("url", "sha256", "allowHttp", *_COMMON),
    "playbook": ("playbook", *_COMMON),
}
_DEFAULT_TIMEOUT = Extension.model_fields["timeout"].default


class Secrets(Enum):
    """What a rendering does with protected settings and custom data."""

    HIDDEN = auto()  # the API: neither is shown
    MASKED = auto()  # files for people: custom data as it is, masks for protected settings
    REVEALED = auto()


@dataclass(slots=True, kw_only=True)
class Extensions:
    """What an array of extensions means."""

    specs: list[Document] = field(default_factory=list)  # in the shape of the YAML spec
    targets: list[str] = field(default_factory=list)  # of each, its JSON path
    health: Document | None = None
    health_target: str = ""
    kept: Document = field(default_factory=dict)  # by name


def render_extensions(
    spec: ScaleSetSpec, kept: object, secrets: Secrets
) -> tuple[list[Document], list[Document]]:
    """The array, and what of it goes to `properties.labctl.extensions`."""
    known = kept if isinstance(kept, dict) else {}
    entries: list[Document] = []
    beside: list[Document] = []
    if spec.health.application_health is not None:
        entries.append(_render_health(spec, known))
    for extension in spec.extensions:
        entry, is_azure = _render(extension, known.get(extension.name), secrets)
        entries.append(entry)
        if is_azure and extension.timeout != _DEFAULT_TIMEOUT:
            beside.append({"name": extension.name, "timeout": format_duration(extension.timeout)})
    return entries, beside


def _render_health(spec: ScaleSetSpec, known: Mapping[str, object]) -> Document:
    health = spec.health.application_health
    assert health is not None  # noqa: S101  asked by the caller
    name, properties = HEALTH_NAME, {}
    for other, entry in known.items():
        if isinstance(entry, dict) and entry.get("isHealth") is True:
            name, properties = other, dict(_mapping(entry.get("properties")))
    taken = {extension.name for extension in spec.extensions}
    while name in taken:
        name = f"{name}-health"
    kind = "ApplicationHealthWindows" if spec.is_windows else "ApplicationHealthLinux"
    if str(properties.get("type", "")).lower() != kind.lower():
        properties |= {"publisher": application_health.PUBLISHER, "type": kind}
    after = [
        each for each in _items(properties.pop("provisionAfterExtensions", [])) if each in taken
    ]
    properties.setdefault("autoUpgradeMinorVersion", True)
    settings = application_health.render_health(health, _mapping(properties.get("settings")))
    found = properties | {"typeHandlerVersion": health.type_handler_version, "settings": settings}
    return {
        "name": name,
        "properties": found | ({"provisionAfterExtensions": after} if after else {}),
    }


def _render(extension: Extension, kept: object, secrets: Secrets) -> tuple[Document, bool]:
    known = dict(_mapping(_mapping(kept).get("properties")))
    settings: Document | None = None
    if _kind_of(known) in custom_script.KINDS:
        settings = custom_script.render_settings(extension, known.get("settings"))
    is_azure = settings is not None
    if settings is None:
        kind, settings = _render_own(extension)
        known = {
            key: known[key] for key in ("typeHandlerVersion", "autoUpgradeMinorVersion")
            if key in known and known.get("publisher") == PUBLISHER
        } | {"publisher": PUBLISHER, "type": kind}  # fmt: skip
        known.setdefault("typeHandlerVersion", "1.0")
    after = _items(known.pop("provisionAfterExtensions", None))
    waits = [each for each in after if each in extension.provision_after_extensions]
    # The health extension, which is none of the spec's, is among them as the client had it.
    if waits != list(extension.provision_after_extensions):
        after = list(extension.provision_after_extensions)
    properties: Document = known | {"settings": settings}
    properties["suppressFailures"] = extension.suppress_failures
    if after:
        properties["provisionAfterExtensions"] = after
    if extension.force_update_tag is not None:
        properties["forceUpdateTag"] = extension.force_update_tag
    if extension.protected_settings and secrets is not Secrets.HIDDEN:
        properties["protectedSettings"] = (
            custom_script.render_protected(extension)
            if secrets is Secrets.REVEALED and is_azure
            else dict(extension.protected_settings)
            if secrets is Secrets.REVEALED
            else mask(extension.protected_settings)
        )
    return {"name": extension.name, "properties": properties}, is_azure


def _render_own(extension: Extension) -> tuple[str, Document]:
    dump = extension.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    kind = next((name for name in ("Url", "Playbook") if name.lower() in dump), "Script")
    keys = {*_OWN_KEYS[kind.lower()], "file"}
    return kind, {key: value for key, value in dump.items() if key in keys}


def read_extensions(
    entries: list[object],
    current: ScaleSetSpec | None,
    rendered: list[object],
    faults: Faults,
) -> Extensions:
    """Read the array. `rendered`: what the lab shows now, against which absence is understood."""
    found = Extensions()
    was = {extension.name: extension for extension in (current.extensions if current else ())}
    shown = {str(_mapping(each).get("name")): _mapping(each) for each in rendered}
    waits: list[list[str]] = []
    for place, item in enumerate(entries):
        at = f"{EXTENSIONS}[{place}]"
        entry = faults.mapping(item, at) or {}
        name = faults.text(entry.get("name"), f"{at}.name")
        if not name:
            faults.note(f"{at}.name", "is missing.")
            continue
        at = f"{at}.properties"
        properties = faults.mapping(entry.get("properties"), at) or {}
        kind = _kind_of(properties)
        if kind in application_health.KINDS:
            _read_health(name, properties, at, found, faults)
            continue
        if name in found.kept:
            faults.note(f"{at.removesuffix('.properties')}.name", f"{name!r} is taken.")
            continue
        same = (
            was.get(name)
            if _kind_of(_mapping(shown.get(name, {}).get("properties"))) == kind
            else None
        )
        if same is not None and entry == shown[name]:
            spec = shallow(same)
        else:
            spec = _read(name, properties, kind, same, at, faults)
        found.specs.append(spec)
        found.targets.append(at)
        found.kept[name] = {"properties": _keep(properties, at, faults)}
        names = _read_names(properties, at, faults)
        spec["provisionAfterExtensions"] = names
        waits.append(names)
    health = {name for name, kept in found.kept.items() if _mapping(kept).get("isHealth")}
    for spec, names in zip(found.specs, waits, strict=True):
        # The health agent is there from the first boot on, so nobody has to wait for it.
        spec["provisionAfterExtensions"] = [each for each in names if each not in health]
    return found


def _read_health(
    name: str, properties: Document, at: str, found: Extensions, faults: Faults
) -> None:
    if found.health is not None or name in found.kept:
        what = f"name {name!r} is taken" if found.health is None else "health has one source"
        faults.note(at, f"is a second one: {what}.")
        return
    settings = faults.mapping(properties.get("settings"), f"{at}.settings") or {}
    version = properties.get("typeHandlerVersion")
    found.health = application_health.read_health(settings, version, at, faults)
    found.health_target = at
    kept = _keep(properties, at, faults)
    names = _read_names(properties, at, faults)
    found.kept[name] = {
        "isHealth": True,
        "properties": kept | ({"provisionAfterExtensions": list(names)} if names else {}),
    }


def _read(
    name: str,
    properties: Document,
    kind: tuple[str, str],
    same: Extension | None,
    at: str,
    faults: Faults,
) -> Document:
    spec: Document = {"name": name}
    settings = faults.mapping(properties.get("settings"), f"{at}.settings") or {}
    given = faults.mapping(
        properties.get("protectedSettings"), f"{at}.protectedSettings", is_secret=True
    )
    protected: Document = given or {}
    if given is None and same is not None:
        protected = dict(same.protected_settings)
    for key in ("suppressFailures",):
        flag = faults.flag(properties.get(key), f"{at}.{key}")
        if flag is not None:
            spec[key] = flag
    tag = properties.get("forceUpdateTag")
    if tag is not None and tag != "":
        # Azure's own clients send numbers, too
        spec["forceUpdateTag"] = str(tag) if isinstance(tag, int) and abs(tag) < 2**63 else tag
    if kind in custom_script.KINDS:
        script = custom_script.read_custom_script(
            settings, protected, at, faults, is_inherited=given is None
        )
        if script is not None:
            spec["script"] = script.script
            spec["settings"] = script.settings
            spec["protectedSettings"] = script.protected_settings
        return spec
    if kind[0] != PUBLISHER or kind[1] not in _OWN_KEYS:
        _note_unknown(properties, at, faults)
        return spec
    for key, value in settings.items():
        if key in _OWN_KEYS[kind[1]]:
            spec[key] = value
        else:
            faults.note(f"{at}.settings.{key}", f"is unknown; {_explain_key(key, kind[1])}")
    if kind[1] not in settings:
        faults.note(f"{at}.settings.{kind[1]}", "is missing.")
    if protected:
        spec["protectedSettings"] = protected
    if given is None and same is not None and protected and _moves(same.url, settings.get("url")):
        faults.note(
            f"{at}.protectedSettings",
            "must be given again: the url leads to another host, which shall not get the secrets "
            "of this one.",
        )
    return spec


def _moves(was: str | None, url: object) -> bool:
    if not isinstance(url, str) or was is None:
        return was is not None or url is not None
    try:
        return urlsplit(was)[:2] != urlsplit(url)[:2]
    except ValueError:
        return True


def _explain_key(key: str, kind: str) -> str:
    if key in {"file", "protectedSettingsFile"}:
        return "files of the host are not read for clients: send the content."
    return f"known here: {', '.join(_OWN_KEYS[kind])}."


def _note_unknown(properties: Document, at: str, faults: Faults) -> None:
    publisher, kind = properties.get("publisher"), properties.get("type")
    for key in ("publisher", "type"):
        if not isinstance(properties.get(key), str):
            faults.note(f"{at}.{key}", "is missing, or is no string.")
            return
    faults.note(
        f"{at}.type",
        f"is not supported in a lab: extension {show(kind)} of {show(publisher)}. Known are "
        "ApplicationHealthLinux and ApplicationHealthWindows of Microsoft.ManagedServices, "
        "CustomScript of Microsoft.Azure.Extensions, CustomScriptForLinux of "
        'Microsoft.OSTCExtensions, and Script, Url and Playbook of "labctl".',
        code=NOT_SUPPORTED,
    )


def _read_names(properties: Document, at: str, faults: Faults) -> list[str]:
    path = f"{at}.provisionAfterExtensions"
    names = faults.list(properties.get("provisionAfterExtensions"), path) or []
    found = [faults.text(each, f"{path}[{place}]") for place, each in enumerate(names)]
    return [each for each in found if each is not None]


def _keep(properties: Document, at: str, faults: Faults) -> Document:
    """What the next rendering shows beside what is in the spec; refused properties are noted."""
    found = keep_entry(properties, find_node(f"{EXTENSIONS}[].properties"), at, faults)
    # All settings of labctl's own kinds are in the spec; of others the client's form is kept.
    form = _KEPT_OWN if _kind_of(properties)[0] == PUBLISHER else _KEPT_FORM
    return found | {key: properties[key] for key in form if key in properties}


def shallow(extension: Extension) -> Document:
    """The extension in the shape of the YAML spec, with its secrets."""
    return {
        str(described.alias): getattr(extension, name)
        for name, described in Extension.model_fields.items()
    }


def _kind_of(properties: Mapping[str, object]) -> tuple[str, str]:
    publisher, kind = properties.get("publisher"), properties.get("type")
    return str(publisher).lower(), str(kind).lower()


def _mapping(value: object) -> Document:
    return value if isinstance(value, dict) else {}


def _items(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []
