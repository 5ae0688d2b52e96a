"""Checks OpenPGP signatures with gpgv, against key rings that the user has pinned."""

import base64
import binascii
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from labctl.drivers.command import run
from labctl.drivers.publishers.failure import UntrustedError
from labctl.errors import HostError, InvalidError
from labctl.settings import Settings

VARIABLE = "LABCTL_KEYRINGS"
_TIMEOUT = timedelta(minutes=10)  # the signature of a large image is over all its bytes
_CLEARSIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"
_ARMOR = re.compile(
    r"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:[^\r\n]+\r?\n)*\r?\n(.+?)"
    r"(?:\r?\n=[A-Za-z0-9+/]{4})?\r?\n-----END PGP PUBLIC KEY BLOCK-----",
    re.DOTALL,
)
_STATUS = re.compile(r"^\[GNUPG:\] (\w+) ?(.*)$", re.MULTILINE)
_FAULTS = {
    "BADSIG": "the signature does not belong to this content",
    "EXPKEYSIG": "the key has expired",
    "EXPSIG": "the signature has expired",
    "REVKEYSIG": "the key was revoked",
    "ERRSIG": "it was made with a key that is not in the key ring",
    "NODATA": "it is not an OpenPGP signature",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """The keys that a user trusts for a publisher."""

    publisher: str
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A signature that is right."""

    fingerprint: str  # of the key that signed
    signer: str  # the key's own name
    content: bytes = b""  # of a clearsigned file: what is signed, without what stands around it


def keyrings_dir(settings: Settings, environment: Mapping[str, str] | None = None) -> Path:
    """Where key rings are: LABCTL_KEYRINGS, or `keyrings` in the state directory."""
    environment = os.environ if environment is None else environment
    chosen = environment.get(VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else settings.state_dir / "keyrings"


def find_keyring(folder: Path, publisher: str) -> Keyring | None:
    """Take `ubuntu.gpg`, `ubuntu.asc` and all such files in the folder `ubuntu`."""
    places = [folder / f"{publisher}.gpg", folder / f"{publisher}.asc"]
    places += [*(folder / publisher).glob("*.gpg"), *(folder / publisher).glob("*.asc")]
    files = tuple(sorted(place for place in places if place.is_file()))
    return Keyring(publisher=publisher, files=files) if files else None


def verify_detached(keyring: Keyring, signature: bytes, signed: Path, *, name: str) -> Verified:
    """Check a signature over a file. Raises UntrustedError."""
    with tempfile.TemporaryDirectory(prefix="labctl-signature-") as workplace:
        path = Path(workplace) / "signature"
        path.write_bytes(signature)
        return _verify(keyring, [path, signed], Path(workplace), name=name)


def verify_sums(keyring: Keyring, signature: bytes, sums: bytes, *, name: str) -> Verified:
    """Check a signature over a list of checksums; `content` is what is signed.

    The signature is detached, or the list itself is clearsigned: then `sums` does not matter.
    Raises UntrustedError.
    """
    with tempfile.TemporaryDirectory(prefix="labctl-signature-") as workplace:
        path = Path(workplace) / "signature"
        path.write_bytes(signature)
        if signature.lstrip().startswith(_CLEARSIGNED):
            return _verify(keyring, [path], Path(workplace), name=name, extract=True)
        signed = Path(workplace) / "signed"
        signed.write_bytes(sums)
        found = _verify(keyring, [path, signed], Path(workplace), name=name)
        return Verified(fingerprint=found.fingerprint, signer=found.signer, content=sums)


def strip_signature(text: str) -> str:
    """The text of a clearsigned file, when nobody can or need check the signature."""
    if not text.lstrip().startswith(_CLEARSIGNED.decode()):
        return text
    _, _, rest = text.replace("\r\n", "\n").partition("\n\n")
    body, _, _ = rest.partition("\n-----BEGIN PGP SIGNATURE-----")
    return "\n".join(line.removeprefix("- ") for line in body.splitlines())


def _verify(
    keyring: Keyring, files: list[Path], workplace: Path, *, name: str, extract: bool = False
) -> Verified:
    rings: list[str | Path] = []
    for place, file in enumerate(keyring.files):
        rings += ["--keyring", _binary(file, workplace / f"ring-{place}.gpg")]
    content = workplace / "content"
    output: list[str | Path] = ["--output", content] if extract else []
    try:
        done = run(
            ["gpgv", "--status-fd", "1", *output, *rings, "--", *files],
            timeout=_TIMEOUT,
            check=False,
            environment={**os.environ, "GNUPGHOME": str(workplace), "LC_ALL": "C"},
        )
    except HostError as error:
        raise HostError(
            "gpgv is not installed, so that signatures cannot be checked",
            hint="apt-get install gpgv, or take the key ring away to go without",
        ) from error
    told = _STATUS.findall(done.stdout)
    words = dict(told)
    fingerprint = words.get("VALIDSIG", "").split(" ")[0]
    faults = [why for word, why in _FAULTS.items() if word in words and word != "ERRSIG"]
    # Two signatures, one by a key that is not here, are as good as one.
    if "GOODSIG" not in words or not fingerprint or faults:
        rings_named = ", ".join(str(file) for file in keyring.files)
        reason = [*faults, *([_FAULTS["ERRSIG"]] if "ERRSIG" in words else [])]
        raise UntrustedError(
            f"the signature of {name!r} is not good",
            detail=f"{'; '.join(reason) or done.stderr.strip()[-300:] or 'gpgv accepts none'}"
            f"; key ring: {rings_named}",
            hint="nothing was imported; ask the publisher's own site for its present key first",
        )
    return Verified(
        fingerprint=fingerprint,
        signer=words["GOODSIG"].partition(" ")[2],
        content=content.read_bytes() if extract else b"",
    )


def _binary(file: Path, target: Path) -> Path:
    """Undo the ASCII armor of a key file, which gpgv cannot."""
    content = file.read_bytes()
    if not content.lstrip().startswith(b"-----BEGIN PGP"):
        return file.absolute()
    blocks = _ARMOR.findall(content.decode("ascii", errors="replace"))
    try:
        target.write_bytes(
            b"".join(base64.b64decode("".join(block.split()), validate=True) for block in blocks)
        )
    except binascii.Error:
        blocks = []
    if not blocks:
        raise InvalidError(
            f"{str(file)!r} is not a file of OpenPGP public keys",
            hint="make one: gpg --export KEY > FILE.gpg",
        )
    return target
