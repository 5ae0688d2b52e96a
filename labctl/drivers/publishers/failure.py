"""The errors of publishers: which one, at which address, what to do next."""

from labctl.errors import ExitCode, LabError


class PublisherError(LabError):
    """A publisher gave something that cannot be used; nothing was imported."""


class UnreachableError(PublisherError):
    """A publisher does not answer now; later it may."""


class MissingError(PublisherError):
    """A publisher answers that it does not have the file."""

    exit_code = ExitCode.NOT_FOUND


class UntrustedError(PublisherError):
    """A checksum or a signature does not fit."""

    exit_code = ExitCode.REFUSED


def misunderstood(publisher: str, url: str, why: str) -> PublisherError:
    """An index that does not have the shape that the publisher's indexes have."""
    return PublisherError(
        f"the index of publisher {publisher!r} cannot be understood",
        detail=f"{url}: {why}",
        hint="try again with --refresh; if it stays, the publisher has changed its format",
    )
