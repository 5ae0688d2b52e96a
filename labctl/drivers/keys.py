"""Makes what labctl assigns to instances: SSH keys, MAC addresses, agent tokens."""

import fcntl
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from labctl.errors import HostError
from labctl.model.instance import Identity
from labctl.settings import Settings, make_passable


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """An ed25519 key in OpenSSH's formats."""

    private: str  # "-----BEGIN OPENSSH PRIVATE KEY-----...", ends with a newline
    public: str  # "ssh-ed25519 AAAA... comment", one line without a newline


def make_key_pair(comment: str) -> KeyPair:
    """Generate a key; `comment` is for the people who read authorized_keys."""
    return _pair_of(Ed25519PrivateKey.generate(), comment)


def generate_identity(
    *, ssh_port: int, agent_port: int, probe_port: int, address: str | None
) -> Identity:
    """Assign what an instance keeps for its life; everything but the arguments is random."""
    host_key = make_key_pair("labctl")
    return Identity(
        uuid=uuid4(),
        mac=make_mac(),
        ssh_port=ssh_port,
        agent_port=agent_port,
        probe_port=probe_port,
        address=address,
        host_key=host_key.private,
        host_key_public=host_key.public,
        agent_token=make_agent_token(),
    )


def ensure_controller_key(settings: Settings) -> str:
    """Load the controller's key, or make it; returns its public half as one line.

    Two processes that start at once get the same key. Raises HostError when the file is there and
    is not an ed25519 key, or when it cannot be written.
    """
    path = settings.controller_key
    try:
        make_passable(settings.state_dir)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.parent.chmod(0o700)
        with (path.parent / "key.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return (_load(path) if path.exists() else _create(path)).public
    except OSError as error:
        raise HostError(
            f"the SSH key {str(path)!r} cannot be read or made",
            detail=str(error),
            hint="check the owner of the state directory",
        ) from error


def make_mac() -> str:
    """Return a random address in the range that QEMU and KVM use, 52:54:00."""
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3))


def make_agent_token() -> str:
    """Return 64 random hexadecimal digits."""
    return secrets.token_hex(32)


def make_access_secret() -> str:
    """A token of the API: nobody can guess it, and tools that look for leaks recognise it."""
    return f"labctl_{secrets.token_urlsafe(32)}"


def _load(path: Path) -> KeyPair:
    try:
        key = load_ssh_private_key(path.read_bytes(), password=None)
    except ValueError as error:
        raise HostError(
            f"the SSH key {str(path)!r} is not readable as a key",
            detail=str(error),
            hint="move it away; the instances that trust it must then be made again",
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise HostError(
            f"the SSH key {str(path)!r} is not an ed25519 key",
            hint="move it away; labctl makes a new one",
        )
    path.chmod(0o600)
    return _pair_of(key, "labctl")


def _create(path: Path) -> KeyPair:
    pair = make_key_pair("labctl")
    _write(path.with_suffix(".pub"), pair.public + "\n", mode=0o644)
    _write(path, pair.private, mode=0o600)  # last: who sees it finds the pair complete
    return pair


def _write(path: Path, text: str, *, mode: int) -> None:
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)


def _pair_of(key: Ed25519PrivateKey, comment: str) -> KeyPair:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return KeyPair(private=private.decode(), public=f"{public.decode()} {comment}".strip())
