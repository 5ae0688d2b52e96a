"""Rules of the spec that one field alone cannot tell; each fault says where it is."""

import base64
import binascii
import ipaddress
from collections.abc import Mapping, Sequence

Path = tuple[str | int, ...]
Faults = list[tuple[Path, str]]

CUSTOM_DATA_LIMIT = 65535  # bytes, as in Azure
SCRIPT_LIMIT = 2**20  # bytes
_SEED_LABEL = "cidata"
_KEY_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)


class RuleError(ValueError):
    """Broken rules; each fault has a path below the value that was checked, and what is wrong."""

    def __init__(self, faults: Sequence[tuple[Path, str]]) -> None:
        super().__init__("; ".join(message for _, message in faults))
        self.faults = tuple(faults)


def require(faults: Faults) -> None:
    """Raise RuleError if there are faults."""
    if faults:
        raise RuleError(faults)


def find_repeated(values: Sequence[str | None], key: str, what: str) -> Faults:
    """Find values that occur before; None does not count."""
    first: dict[str, int] = {}
    faults: Faults = []
    for place, value in enumerate(values):
        if value is None:
            continue
        if value in first:
            faults.append(((place, key), f"{what} {value!r} is taken by entry {first[value] + 1}"))
        first.setdefault(value, place)
    return faults


def find_seed_names(disks: Sequence[str]) -> Faults:
    """Find data disks whose file system would be labelled like the seed that a guest looks for."""
    return [
        (
            (place, "name"),
            f"{name!r} is the label of the seed, which the guest would look for there",
        )
        for place, name in enumerate(disks)
        if name == _SEED_LABEL
    ]


def find_order_faults(after: Mapping[str, Sequence[str]]) -> Faults:
    """Find unknown names and cycles in `after`: the extensions that each extension waits for."""
    faults: Faults = []
    known = ", ".join(after)
    for place, (name, others) in enumerate(after.items()):
        for at, other in enumerate(others):
            path: Path = (place, "provisionAfterExtensions", at)
            if other == name:
                faults.append((path, f"extension {name!r} cannot wait for itself"))
            elif other not in after:
                faults.append((path, f"there is no extension {other!r}; there are: {known}"))
    cycle = _find_cycle({name: [o for o in others if o != name] for name, others in after.items()})
    if cycle:
        path = (list(after).index(cycle[0]), "provisionAfterExtensions")
        faults.append((path, f"extensions wait for one another: {' -> '.join(cycle)}"))
    return faults


def find_key_fault(text: str) -> str | None:
    """Tell what is wrong with an OpenSSH public key. Never repeats the text: it may be a secret."""
    if "PRIVATE KEY" in text:
        return "this is a private key; give the public one, from the file ending in .pub"
    words = text.split(None, 2)
    if "\n" in text or len(words) < 2 or words[0] not in _KEY_TYPES:
        return "must be one OpenSSH public key, for example 'ssh-ed25519 AAAA... me@host'"
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        return "the public key is damaged: its second word is not base64"
    # The blob begins with the type again, after its length in four bytes.
    if blob[4 : 4 + len(words[0])] != words[0].encode():
        return f"the public key is damaged: its content is not of type {words[0]}"
    return None


def find_subnet_fault(text: str) -> str | None:
    """Tell why `text` is not an IPv4 network for a scale set."""
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        return f"must be an IPv4 network such as 10.87.1.0/24: {error}"
    if not network.is_private or network.is_loopback or network.is_link_local:
        return "must be a private network, inside 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"
    if not 16 <= network.prefixlen <= 29:
        return "must have a prefix from /16 to /29"
    return None


def find_size_fault(text: str | None, limit: int) -> str | None:
    """Tell whether `text` has more than `limit` bytes."""
    size = len((text or "").encode())
    return f"has {size} bytes; at most {limit} are allowed" if size > limit else None


def _find_cycle(after: Mapping[str, Sequence[str]]) -> list[str]:
    """Find one cycle, closed: `[a, b, a]`. Without recursion, since the input is the user's."""
    finished: set[str] = set()
    for start in after:
        trail: list[str] = []
        waiting = [iter((start,))]
        while waiting:
            name = next(waiting[-1], None)
            if name is None:
                waiting.pop()
                if trail:
                    finished.add(trail.pop())
            elif name in trail:
                return [*trail[trail.index(name) :], name]
            elif name in after and name not in finished:
                trail.append(name)
                waiting.append(iter(after[name]))
    return []
