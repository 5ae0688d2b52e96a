"""What in a spec reaches into the host: only admins may bring that in by the API."""

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from labctl.arm.model_faults import Steps, source_of
from labctl.model.spec import ScaleSetSpec
from labctl.model.webhook import Webhook

_NUMBER = re.compile(r"0x[0-9a-f]{0,16}|[0-9]{1,22}")
_OWN_NAMES = frozenset(
    {"localhost", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback"}
    | {"localhost.localdomain", "localhost4.localdomain4", "localhost6.localdomain6"}
)


def find_host_access(
    spec: ScaleSetSpec, current: ScaleSetSpec | None, sources: Mapping[Steps, str]
) -> tuple[str, ...]:
    """JSON paths of programs, files and addresses of the host that `current` does not have so."""
    old = {} if current is None else _list(current)
    new = _list(spec)
    return tuple(
        source_of(at, sources) for at, value in new.items() if value not in _same_kind(old, at)
    )


def list_own_addresses(spec: ScaleSetSpec) -> list[Steps]:
    """Where a spec has addresses of the host itself."""
    return [at for at in _list(spec) if at[-1] == "url"]


def _same_kind(old: Mapping[Steps, object], at: Steps) -> list[object]:
    """What stood at the place; entries of arrays may have moved."""
    shape = [step for step in at if isinstance(step, str)]
    return [
        value
        for other, value in old.items()
        if [step for step in other if isinstance(step, str)] == shape
    ]


def _list(spec: ScaleSetSpec) -> dict[Steps, object]:
    found: dict[Steps, object] = {}
    policy = spec.upgrade_policy
    for kind, hook in (("drain", policy.hooks.drain), ("undrain", policy.hooks.undrain)):
        if hook is not None and hook.command is not None:
            found["upgradePolicy", "hooks", kind, "command"] = hook.command
    at: Steps = ("upgradePolicy", "approval")
    if policy.approval is not None and policy.approval.command is not None:
        found[*at, "command"] = policy.approval.command
    if policy.approval is not None and policy.approval.webhook is not None:
        found |= _list_webhook(policy.approval.webhook, (*at, "webhook"))
    for place, receiver in enumerate(spec.notifications):
        found |= _list_webhook(receiver, ("notifications", place))
    for place, extension in enumerate(spec.extensions):
        here: Steps = ("extensions", place)
        if extension.playbook is not None:
            # Its variables count, too: Ansible on the host evaluates templates in them.
            found[*here, "playbook"] = (
                extension.playbook, extension.settings, extension.protected_settings,
            )  # fmt: skip
        if extension.file is not None:
            found[*here, "file"] = extension.file
        if extension.protected_settings_file is not None:
            found[*here, "protectedSettingsFile"] = extension.protected_settings_file
        if extension.url is not None and _is_own(extension.url):
            found[*here, "url"] = extension.url
    if spec.custom_data is not None and spec.custom_data.file is not None:
        found["customData", "file"] = spec.custom_data.file
    return found


def _list_webhook(webhook: Webhook, at: Steps) -> dict[Steps, object]:
    found: dict[Steps, object] = {}
    if webhook.secret_file is not None:
        found[*at, "secretFile"] = (webhook.secret_file, webhook.url)
    if _is_own(webhook.url):
        found[*at, "url"] = webhook.url
    return found


def _is_own(url: str) -> bool:
    """Does it lead to the host itself? Names of other domains are not looked up."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host in _OWN_NAMES or host.endswith(".localhost"):
        return True
    address = _read_address(host)
    return address is not None and (
        address.is_loopback or address.is_unspecified or address.is_link_local
    )


def _read_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _read_loose_address(host)
    if isinstance(address, ipaddress.IPv6Address) and int(address) > 1:
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if int(address) < 2**32:  # ::127.0.0.1, an older way to write the same
            return ipaddress.IPv4Address(int(address))
    return address


def _read_loose_address(host: str) -> ipaddress.IPv4Address | None:
    """As the system reads what Python does not: 127.1, 0x7f.1, 0177.0.0.1, 2130706433."""
    parts = host.split(".")
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    try:
        *first, last = (_read_number(part) for part in parts)
    except ValueError:
        return None
    if any(number > 255 for number in first) or last >= 256 ** (4 - len(first)):
        return None
    above = sum(number << 8 * (3 - place) for place, number in enumerate(first))
    return ipaddress.IPv4Address(above + last)


def _read_number(text: str) -> int:
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8 if text.startswith("0") else 10)
