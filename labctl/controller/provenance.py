"""What is known of where a published image comes from, beside its checksum: its signature."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from labctl.drivers.publishers import signature
from labctl.drivers.publishers.adapter import Adapter
from labctl.drivers.publishers.failure import MissingError, PublisherError, UntrustedError
from labctl.drivers.publishers.index import IndexReader
from labctl.drivers.publishers.shapes import parse_sums
from labctl.drivers.publishers.transport import Transport
from labctl.model.publisher import Checksum, Covers, PublishedVersion
from labctl.settings import Settings


class Trust(StrEnum):
    """How much is known of where an image comes from, beside its checksum."""

    SIGNED = "signed"
    NO_KEYRING = "not verified: no key ring"
    NOT_SIGNED = "not verified: the publisher does not sign"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What was found out of a signature."""

    trust: Trust
    fingerprint: str = ""
    signer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One publisher, open for questions."""

    settings: Settings
    adapter: Adapter
    transport: Transport
    index: IndexReader

    @property
    def name(self) -> str:
        """The publisher's name."""
        return self.adapter.publisher.name

    @property
    def keyring(self) -> signature.Keyring | None:
        """The keys that the user trusts for it."""
        return signature.find_keyring(signature.keyrings_dir(self.settings), self.name)


def describe_provenance(source: Source, found: Provenance) -> str:
    """Say for people what is known, and what to do for more."""
    match found.trust:
        case Trust.SIGNED:
            return f"the signature is good: {found.signer} ({found.fingerprint})"
        case Trust.NO_KEYRING:
            place = signature.keyrings_dir(source.settings) / f"{source.name}.gpg"
            return f"the signature is {found.trust.value}; put the publisher's keys into {place}"
        case Trust.NOT_SIGNED:
            return f"the signature is {found.trust.value}"


def verify_before(
    source: Source, published: PublishedVersion, checksum: Checksum, *, required: bool
) -> Provenance | None:
    """Check what can be checked before the download; None: the image itself is signed.

    Raises UntrustedError for a bad or missing signature, and where `required` cannot be had.
    """
    signed, keyring = published.signature, source.keyring
    if signed is None:
        if required:
            raise UntrustedError(
                f"publisher {source.name!r} does not sign {published.file_name!r}",
                hint="nothing was imported; leave --require-signature away to trust TLS alone",
            )
        return Provenance(trust=Trust.NOT_SIGNED)
    if keyring is None:
        if required:
            folder = signature.keyrings_dir(source.settings)
            raise UntrustedError(
                f"there is no key ring for publisher {source.name!r}",
                detail=f"looked for {folder / source.name}.gpg, .asc and {folder / source.name}/",
                hint=f"put the publisher's public keys there, or set {signature.VARIABLE}",
            )
        return Provenance(trust=Trust.NO_KEYRING)
    content = _fetch_signature(source, signed.url)
    if signed.covers is Covers.IMAGE:
        return None
    sums = source.index.content(signed.sums_url) if signed.sums_url else b""
    verified = signature.verify_sums(keyring, content, sums, name=signed.url)
    told = parse_sums(verified.content.decode(errors="replace")).get(published.file_name)
    if told != checksum:
        raise UntrustedError(
            f"the signed list does not have the checksum of {published.file_name!r}",
            detail=f"signed: {told or 'nothing'}; index: {checksum}; {signed.url}",
            hint="nothing was imported; try again with --refresh, or another mirror",
        )
    return Provenance(trust=Trust.SIGNED, fingerprint=verified.fingerprint, signer=verified.signer)


def verify_image(source: Source, published: PublishedVersion, path: Path) -> Provenance:
    """Check the signature over a downloaded file. Raises UntrustedError."""
    signed, keyring = published.signature, source.keyring
    if signed is None or keyring is None:
        raise PublisherError(f"the key ring of {source.name!r} was taken away meanwhile")
    content = _fetch_signature(source, signed.url)
    verified = signature.verify_detached(keyring, content, path, name=signed.url)
    return Provenance(trust=Trust.SIGNED, fingerprint=verified.fingerprint, signer=verified.signer)


def _fetch_signature(source: Source, url: str) -> bytes:
    try:
        return source.index.content(url)
    except MissingError as error:
        raise UntrustedError(
            f"the signature of publisher {source.name!r} is missing",
            detail=error.detail,
            hint="nothing was imported; without a key ring for it, it would not be asked for",
        ) from error
