"""The key with which the API signs the access tokens that it issues."""

import os
import secrets

from labctl.drivers.private_file import ensure_directory, write_file
from labctl.errors import HostError
from labctl.settings import Settings

_SIZE = 32  # bytes; HS256 asks for as many


def ensure_signing_key(settings: Settings) -> bytes:
    """Load the key, or make it. Two that begin at once get the same. Raises HostError."""
    path = settings.api_dir / "signing.key"
    try:
        if not path.exists():
            ensure_directory(settings.api_dir, mode=0o711)
            fresh = settings.api_dir / f"signing.{os.getpid()}.{secrets.token_hex(4)}"
            write_file(fresh, secrets.token_bytes(_SIZE), mode=0o600)
            try:
                os.link(fresh, path)  # fails where another was faster
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
        found = path.read_bytes()
    except OSError as error:
        raise HostError(
            f"the key {str(path)!r} cannot be read or made",
            detail=str(error),
            hint="check the owner of the state directory, and free space",
        ) from error
    if len(found) < _SIZE:
        raise HostError(
            f"the key {str(path)!r} is too short",
            hint="remove it; whoever is logged in must then log in again",
        )
    return found
