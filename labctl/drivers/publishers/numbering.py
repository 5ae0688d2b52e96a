"""Turns publishers' build names into Major.Minor.Patch that order as the builds do."""

import re
from collections.abc import Iterable
from datetime import datetime
from itertools import pairwise

from labctl.drivers.publishers.failure import misunderstood
from labctl.errors import InvalidError
from labctl.model.image import VersionNumber
from labctl.model.publisher import PublishedVersion

_BUILD = re.compile(r"(\d{8})(?:[._-](\d{1,2}))?")


def number(*parts: int) -> VersionNumber | None:
    """Make a version of three numbers; None when one is too large."""
    try:
        return VersionNumber.parse(".".join(str(part) for part in parts))
    except InvalidError:
        return None


def dated(major: int, minor: int, build: str) -> VersionNumber | None:
    """Number a build by its day and its number on that day; None for any other name.

    Ubuntu 24.04 of 20260826.1 is 24.4.2026082601. The two digits are always there: otherwise a
    second build of a day would be newer than all first builds of later days. All parts stay below
    2^31 up to the year 2147.
    """
    match = _BUILD.fullmatch(build)
    if match is None or not _is_day(match[1]):
        return None
    return number(major, minor, int(match[1]) * 100 + int(match[2] or 0))


def _is_day(digits: str) -> bool:
    try:
        datetime.strptime(digits, "%Y%m%d")  # noqa: DTZ007  only asks whether there is such a day
    except ValueError:
        return False
    return True


def ordered(
    publisher: str, url: str, versions: Iterable[PublishedVersion]
) -> tuple[PublishedVersion, ...]:
    """Sort by number, oldest first. Raises PublisherError when two builds have one number."""
    found = sorted(versions, key=lambda each: each.version)
    for one, other in pairwise(found):
        if one.version == other.version:
            raise misunderstood(
                publisher, url, f"{one.file_name} and {other.file_name} are both {one.version}"
            )
    return tuple(found)
