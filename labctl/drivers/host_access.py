"""As which user QEMU runs, and what that user may do with files of this host."""

import os
import pwd
import stat
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from labctl.drivers.command import run
from labctl.drivers.host import find_existing

_PATIENCE = timedelta(seconds=20)


class Permission(Enum):
    """What is to be done with a file or directory; the value is the mask of `access`."""

    PASS = os.X_OK
    USE = os.R_OK | os.W_OK


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who a process runs as."""

    name: str
    user_id: int
    group_id: int
    groups: frozenset[int]  # all of them, the first included

    @classmethod
    def from_id(cls, user_id: int) -> Self:
        """A user of this host, or a number that has no name here."""
        try:
            entry = pwd.getpwuid(user_id)
        except KeyError:
            groups = frozenset({user_id})
            return cls(name=str(user_id), user_id=user_id, group_id=user_id, groups=groups)
        groups = frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid))
        return cls(name=entry.pw_name, user_id=user_id, group_id=entry.pw_gid, groups=groups)


def is_local(uri: str) -> bool:
    """Does this connection run instances on this very host?"""
    parts = urlsplit(uri)
    return parts.scheme == "qemu" and not parts.netloc


def is_system(uri: str) -> bool:
    """Does this connection lead to the host's own daemons, not to those of one user?"""
    # For root, libvirt has no sessions: both names lead to the same daemon.
    return is_local(uri) and (urlsplit(uri).path == "/system" or os.geteuid() == 0)


def find_qemu_user(uri: str) -> User:
    """The user as which QEMU runs for this connection. Raises CommandError without libvirt."""
    if not is_system(uri):
        return User.from_id(os.geteuid())
    done = run(["virsh", "-q", "-c", uri, "capabilities"], timeout=_PATIENCE)
    for model in ET.fromstring(done.stdout).iterfind("host/secmodel"):  # noqa: S314  from libvirt
        label = model.findtext("baselabel", "")  # for example "+64055:+106"
        if model.findtext("model") == "dac" and label.startswith("+"):
            return User.from_id(int(label.removeprefix("+").partition(":")[0]))
    return User.from_id(os.geteuid())


def may_access(user: User, path: Path, permission: Permission) -> bool:
    """Ask the kernel where we are that user or root; else go by the mode, blind for ACLs."""
    if user.user_id == os.geteuid():
        return os.access(path, permission.value)
    if os.geteuid() == 0:
        flags = ["-x"] if permission is Permission.PASS else ["-r", str(path), "-a", "-w"]
        done = run(
            [
                *("setpriv", f"--reuid={user.user_id}", f"--regid={user.group_id}"),
                f"--groups={','.join(str(group) for group in sorted(user.groups))}",
                *("test", *flags, str(path)),
            ],
            timeout=_PATIENCE,
            check=False,
        )
        return done.exit_code == 0
    return _mode_allows(user, path.stat(), permission)


def _mode_allows(user: User, found: os.stat_result, permission: Permission) -> bool:
    mode = stat.S_IMODE(found.st_mode)
    if user.user_id == 0:
        return True
    if found.st_uid == user.user_id:
        mode >>= 6
    elif found.st_gid in user.groups:
        mode >>= 3
    return mode & permission.value == permission.value


def find_barriers(user: User, path: Path) -> Iterator[Path]:
    """The directories on the way to and including `path` that `user` may not pass, outermost first.

    What does not exist yet is no barrier.
    """
    present = find_existing(path)
    for place in (*reversed(present.parents), present):
        if place.is_dir() and not may_access(user, place, Permission.PASS):
            yield place
