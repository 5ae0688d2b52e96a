"""Azure's custom script extensions for Linux as labctl scripts, and back byte for byte."""

import base64
import binascii
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from labctl.arm.errors import Document
from labctl.arm.faults import NOT_SUPPORTED, Faults
from labctl.model.setup import Extension
from labctl.model.spec_rules import SCRIPT_LIMIT

KINDS = {
    ("microsoft.azure.extensions", "customscript"),
    ("microsoft.ostcextensions", "customscriptforlinux"),
}
COMMAND, SCRIPT = "commandToExecute", "script"
# What a protected command or script is run by: a spec, its events and its logs never hold it.
HIDDEN_SCRIPTS = {
    COMMAND: '#!/bin/sh\nexec /bin/sh "$LABCTL_SETTINGS_DIR/protected/commandToExecute"\n',
    SCRIPT: (
        "#!/bin/sh\n"
        'file="$LABCTL_SETTINGS_DIR/protected/script"\n'
        "# /run may be mounted noexec, so the interpreter is started by name.\n"
        "program=$(sed -n '1s/^#! *//p' \"$file\")\n"
        'exec ${program:-/bin/sh} "$file"\n'
    ),
}
_DOWNLOADS = ("fileUris", "storageAccountName", "storageAccountKey", "managedIdentity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What a custom script extension means in the words of the spec."""

    script: str
    settings: Document
    protected_settings: Document


def read_custom_script(
    settings: Mapping[str, object],
    protected: Mapping[str, object],
    at: str,
    faults: Faults,
    *,
    is_inherited: bool = False,
) -> Script | None:
    """Read both kinds of settings; None after noting a fault.

    `is_inherited`: the protected ones are those of the present spec, so they are decoded already.
    """
    public_at, protected_at = f"{at}.settings", f"{at}.protectedSettings"
    before = len(faults.found)
    for part, place in ((settings, public_at), (protected, protected_at)):
        for key in _DOWNLOADS:
            if part.get(key):
                faults.note(
                    f"{place}.{key}",
                    "is not supported in a lab: files would be fetched without a checksum. Use "
                    'publisher "labctl", type "Url" with url and sha256, or send the script itself '
                    "as 'script'.",
                    code=NOT_SUPPORTED,
                )
    given = [
        (part, place, key)
        for part, place in ((settings, public_at), (protected, protected_at))
        for key in (COMMAND, SCRIPT)
        if part.get(key) is not None
    ]
    if len(given) != 1 and len(faults.found) == before:
        what = "neither" if not given else "more than one"
        faults.note(at, f"needs commandToExecute or script, once; {what} is given.")
    if len(faults.found) > before:
        return None
    part, place, key = given[0]
    is_hidden = part is protected
    text = faults.text(part[key], f"{place}.{key}", is_secret=is_hidden)
    if key == SCRIPT and text is not None and not (is_hidden and is_inherited):
        text = decode_text(text, f"{place}.{key}", faults, limit=SCRIPT_LIMIT, is_zipped=True)
    if text is None:
        return None
    rest = {name: value for name, value in settings.items() if name not in {COMMAND, SCRIPT}}
    rest = {name: value for name, value in rest.items() if name not in _DOWNLOADS}
    if is_hidden:
        secrets = {name: value for name, value in protected.items() if name not in _DOWNLOADS}
        return Script(
            script=HIDDEN_SCRIPTS[key], settings=rest, protected_settings=secrets | {key: text}
        )
    script = f"#!/bin/sh\n{text}\n" if key == COMMAND else text
    return Script(script=script, settings=rest, protected_settings=dict(protected))


def render_settings(extension: Extension, kept: object) -> Document | None:
    """The public settings; None: settings cannot say what the extension is."""
    faults = Faults()
    known = dict(kept) if isinstance(kept, dict) else {}
    is_hidden = extension.script in HIDDEN_SCRIPTS.values()
    found = read_custom_script(known, extension.protected_settings, "", faults, is_inherited=True)
    meant = Script(
        script=extension.script or "",
        settings=dict(extension.settings),
        protected_settings=dict(extension.protected_settings),
    )
    if found == meant:
        return known  # word for word what the client sent
    settings: Document = dict(extension.settings)
    if is_hidden or extension.script is None or {COMMAND, SCRIPT, *_DOWNLOADS} & set(settings):
        return None
    if {COMMAND, SCRIPT, *_DOWNLOADS} & set(extension.protected_settings):
        return None
    return settings | {SCRIPT: base64.b64encode(extension.script.encode()).decode()}


def render_protected(extension: Extension) -> Document:
    """The protected settings as a client would send them."""
    found: Document = dict(extension.protected_settings)
    text = found.get(SCRIPT)
    if extension.script == HIDDEN_SCRIPTS[SCRIPT] and isinstance(text, str):
        found[SCRIPT] = base64.b64encode(text.encode()).decode()
    return found


def decode_text(
    text: str, target: str, faults: Faults, *, limit: int, is_zipped: bool = False
) -> str | None:
    """UTF-8 text from base64, and from gzip in it; None after noting a fault."""
    try:
        content = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        faults.note(target, "must be base64.")
        return None
    if is_zipped and content.startswith(b"\x1f\x8b"):
        try:
            unpacker = zlib.decompressobj(wbits=31)
            content = unpacker.decompress(content, limit + 1)
        except zlib.error:
            faults.note(target, "is damaged: it begins like gzip and is none.")
            return None
        if len(content) <= limit and not unpacker.eof:
            faults.note(target, "is damaged: its gzip ends too early.")
            return None
    if len(content) > limit:
        faults.note(target, f"has more than {limit} bytes.")
        return None
    try:
        found = content.decode()
    except UnicodeDecodeError:
        faults.note(target, "must be UTF-8 text; binary content is not supported in a lab.")
        return None
    if "\0" in found:
        faults.note(target, "must be text, without NUL characters.")
        return None
    return found
