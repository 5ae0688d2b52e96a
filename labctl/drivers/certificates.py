"""Makes the certificates of the API's server: a small CA of this lab's own, and what it signs."""

import fcntl
import ipaddress
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from labctl.drivers.private_file import ensure_directory, write_file
from labctl.errors import HostError, InvalidError
from labctl.settings import Settings, make_passable

_CA_LIFE = timedelta(days=3653)
_LIFE = timedelta(days=365)
_RENEW = timedelta(days=30)  # so long before its end a certificate is renewed
_SKEW = timedelta(hours=1)  # a client's clock may be behind
_ALWAYS = ("localhost", "127.0.0.1", "::1")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerIdentity:
    """The files with which a server shows who it is. One file may hold both."""

    certificate: Path  # with the chain
    key: Path
    expires_at: datetime


def check_host(name: str) -> str:
    """A name or address for a certificate, in its usual spelling. Raises InvalidError."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        pass
    # What looks like an address and is none must not pass for a name.
    if not _HOST_NAME.fullmatch(name) or name.replace(".", "").isdigit():
        raise InvalidError(
            f"{name!r} is neither a host name nor an address",
            hint="for example lab7.example.org or 192.0.2.7; without a port",
        )
    return name.lower()


def ensure_identity(
    settings: Settings, hosts: Iterable[str], *, host_name: str, now: datetime
) -> ServerIdentity:
    """The server's certificate for these hosts, this machine's name and loopback.

    Made, or renewed, where it is missing, near its end, or for other hosts; the CA is made once.
    Raises HostError when the files are broken or cannot be written.
    """
    names = list(dict.fromkeys((*_ALWAYS, *hosts)))
    if _HOST_NAME.fullmatch(host_name) and host_name.lower() not in names:
        names.append(host_name.lower())
    path = settings.api_dir / "server.pem"
    try:
        with _locked(settings):
            authority, authority_key = _ensure_authority(settings, now)
            present = _find_certificate(path)
            if present is None or not _is_good(present, authority, names, now):
                content = _issue(authority, authority_key, names, now)
                write_file(path, content, mode=0o600)
                present = x509.load_pem_x509_certificate(content)
    except OSError as error:
        raise _cannot(settings.api_dir, error) from error
    return ServerIdentity(certificate=path, key=path, expires_at=present.not_valid_after_utc)


def has_authority(settings: Settings) -> bool:
    """Was the CA of this lab made?"""
    return settings.ca_certificate.exists()


def load_identity(certificate: Path, key: Path, *, now: datetime) -> ServerIdentity:
    """Files that the user brings. Raises InvalidError when they do not fit or are out of date."""
    found = _read_pem(certificate)
    try:
        shown = x509.load_pem_x509_certificate(found)
    except ValueError as error:
        raise InvalidError(
            f"--tls-cert {str(certificate)!r} is no certificate in PEM", detail=str(error)
        ) from error
    try:
        private = load_pem_private_key(_read_pem(key), password=None)
    except (ValueError, TypeError) as error:
        raise InvalidError(
            f"--tls-key {str(key)!r} is no private key in PEM without a password",
            detail=str(error),
        ) from error
    if private.public_key() != shown.public_key():
        raise InvalidError(
            f"the key {str(key)!r} is not that of the certificate {str(certificate)!r}",
            hint="the first certificate in the file must be the server's own, then its chain",
        )
    if not shown.not_valid_before_utc <= now < shown.not_valid_after_utc:
        raise InvalidError(
            f"the certificate {str(certificate)!r} is not valid now",
            detail=f"it is from {shown.not_valid_before_utc:%Y-%m-%d %H:%M} to "
            f"{shown.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
        )
    return ServerIdentity(certificate=certificate, key=key, expires_at=shown.not_valid_after_utc)


@contextmanager
def _locked(settings: Settings) -> Iterator[None]:
    """Two that start at once make one CA."""
    make_passable(settings.state_dir)
    # Others pass through to ca.pem, which they may read.
    ensure_directory(settings.api_dir, mode=0o711)
    lock = os.open(settings.api_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _ensure_authority(
    settings: Settings, now: datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    path, key_path = settings.ca_certificate, settings.api_dir / "ca.key"
    advice = (
        f"put both files back from a backup, or move {str(settings.api_dir)!r} away and run: "
        "labctl serve --init; clients must then trust the new ca.pem"
    )
    if path.exists() and not key_path.exists():
        raise HostError(f"the key {str(key_path)!r} of the CA is gone", hint=advice)
    if not key_path.exists():
        write_file(key_path, _dump_key(ec.generate_private_key(ec.SECP256R1())), mode=0o600)
    key_path.chmod(0o600)
    try:
        key = load_pem_private_key(key_path.read_bytes(), password=None)
        # Not there at first, and after a crash between the two files.
        if isinstance(key, ec.EllipticCurvePrivateKey) and not path.exists():
            made = _sign_authority(key, now).public_bytes(Encoding.PEM)
            write_file(path, made, mode=0o644)
        authority = x509.load_pem_x509_certificate(path.read_bytes())
    except (ValueError, TypeError) as error:
        raise HostError(
            f"the CA in {str(settings.api_dir)!r} cannot be read", detail=str(error), hint=advice
        ) from error
    if (
        not isinstance(key, ec.EllipticCurvePrivateKey)
        or authority.public_key() != key.public_key()
    ):
        raise HostError(f"{str(path)!r} and {str(key_path)!r} do not fit together", hint=advice)
    if authority.not_valid_after_utc <= now:
        raise HostError(
            f"the CA {str(path)!r} ended at {authority.not_valid_after_utc:%Y-%m-%d}", hint=advice
        )
    return authority, key


def _sign_authority(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    # The serial number in the name: a client that trusts two labs must tell their CAs apart.
    serial = x509.random_serial_number()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"labctl CA {serial:x}"[:40])])
    return (
        _begin(name, name, key.public_key(), serial, now, now + _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(is_authority=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _issue(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    names: list[str],
    now: datetime,
) -> bytes:
    """A new key and its certificate in one file: no crash can leave two that do not fit."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "labctl API")])
    until = min(now + _LIFE, authority.not_valid_after_utc)
    issuer_id = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        _begin(
            subject, authority.subject, key.public_key(), x509.random_serial_number(), now, until
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(is_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([_general_name(n) for n in names]), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM) + _dump_key(key)


def _begin(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    serial: int,
    begins: datetime,
    ends: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(begins - _SKEW)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _find_certificate(path: Path) -> x509.Certificate | None:
    """What is there and can be used; anything else is made anew."""
    try:
        content = path.read_bytes()
        found = x509.load_pem_x509_certificate(content)
        key = load_pem_private_key(content, password=None)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    path.chmod(0o600)
    return found if key.public_key() == found.public_key() else None


def _is_good(
    present: x509.Certificate, authority: x509.Certificate, names: list[str], now: datetime
) -> bool:
    try:
        present.verify_directly_issued_by(authority)
        shown = present.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False  # whatever is wrong with it: a new one costs nothing
    left = present.not_valid_after_utc - now
    has_time = left > _RENEW or present.not_valid_after_utc == authority.not_valid_after_utc
    is_begun = present.not_valid_before_utc <= now
    # More names than are asked for do no harm: `--init` does not know what the daemon listens on.
    return has_time and is_begun and set(shown) >= {_general_name(name) for name in names}


def _dump_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read_pem(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidError(
            f"{str(path)!r} cannot be read",
            detail=error.strerror or str(error),
            hint="name a PEM file that this user may read",
        ) from error


def _cannot(path: Path, error: OSError) -> HostError:
    return HostError(
        f"the files of the API in {str(path)!r} cannot be read or written",
        detail=str(error),
        hint="check the owner of the state directory, and free space",
    )
