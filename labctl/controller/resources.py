"""External resources and credentials of extensions: are they there, and are they still good?"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import JsonValue

from labctl.controller.clock import now as read_clock
from labctl.controller.lab import Lab
from labctl.controller.upgrades import find_same_upgrade, find_target
from labctl.drivers.playbook import require_ansible
from labctl.drivers.resource import (
    CredentialRefusedError,
    Resource,
    UnreachableError,
    download,
    find_cached,
    probe,
)
from labctl.errors import LabError, RefusedError
from labctl.model.credential import find_expiry
from labctl.model.extension_rules import FETCH_SETTINGS, walk_texts
from labctl.model.plan import ScaleSet
from labctl.model.setup import Extension
from labctl.model.spec import ScaleSetSpec
from labctl.settings import Settings

_ASK = timedelta(seconds=5)
_FETCH = timedelta(seconds=60)

CUSTOM_DATA = "customData"  # in the place of an extension's name
_URL = re.compile(r"https?://[^\s'\"<>\\]+")

Fault = tuple[str, str]  # (extension, what is wrong)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """The content of an extension's URL."""

    content: bytes
    warning: str = ""  # it came from the cache, because the server did not answer


class MissingError(LabError):
    """A playbook is not where the spec says."""


class ExpiredError(CredentialRefusedError):
    """A credential tells itself that its time is over."""


def find_unreachable(spec: ScaleSetSpec, *, now: datetime, settings: Settings) -> tuple[Fault, ...]:
    """Which extensions name something that cannot be had now, and why; secrets are not repeated."""
    faults: list[Fault] = []
    for extension in spec.extensions:
        try:
            require_unexpired(extension, now)
            if extension.url is not None:
                _require_reachable(extension, settings)
            if extension.playbook is not None:
                require_playbook(extension)
        except LabError as error:
            faults.append((extension.name, error.brief))
    for url in _URL.findall(spec.custom_data.inline or "" if spec.custom_data else ""):
        expiry = find_expiry(url)
        if expiry is not None and expiry <= now:
            shown = url.partition("?")[0]
            faults.append((CUSTOM_DATA, f"{shown}: its signature expired at {_write(expiry)}"))
    return tuple(faults)


def require_resources(spec: ScaleSetSpec, *, now: datetime, settings: Settings) -> None:
    """Raises RefusedError that names every resource and credential that is not usable now."""
    faults = find_unreachable(spec, now=now, settings=settings)
    if faults:
        raise RefusedError(
            f"what extensions or custom data of {spec.name!r} need is not available",
            detail="\n".join(f"{name}: {fault}" for name, fault in faults),
            hint="renew it, put it into the spec, then run: labctl apply",
        )


def require_for_upgrade(lab: Lab, view: ScaleSet, version: str | None, *, restores: bool) -> None:
    """`require_resources`, unless such an upgrade runs: it goes on, and says what it meets."""
    with lab.database.read() as connection:
        target = find_target(connection, view, version, now=read_clock())
        running = find_same_upgrade(connection, view.name, target, restores=restores)
    if running is None:
        require_resources(view.spec, now=read_clock(), settings=lab.settings)


def require_tools_and_resources(spec: ScaleSetSpec, *, now: datetime, settings: Settings) -> None:
    """What `labctl apply` asks for before anything changes.

    Raises HostError where playbooks are named and Ansible is missing, and RefusedError as
    `require_resources` does when the spec enables automatic upgrades.
    """
    if any(extension.playbook is not None for extension in spec.extensions):
        require_ansible()
    if spec.upgrade_policy.automatic_os_upgrade_policy.enable_automatic_os_upgrade:
        require_resources(spec, now=now, settings=settings)


def require_unexpired(extension: Extension, now: datetime) -> None:
    """Raises ExpiredError for the first setting or signed URL whose date has passed."""
    for path, text in _credentials(extension):
        expiry = find_expiry(text)
        if expiry is not None and expiry <= now:
            raise ExpiredError(
                f"credential {path!r} expired at {_write(expiry)}",
                hint="renew it, put it into the spec, then run: labctl apply",
            )


def require_playbook(extension: Extension) -> Path:
    """Raises MissingError when the playbook of an extension is gone."""
    path = Path(extension.playbook or "")
    if not path.is_file():
        raise MissingError(
            f"playbook {str(path)!r} does not exist",
            hint="put it back, or name another one in the spec, then run: labctl apply",
        )
    return path


def fetch(extension: Extension, settings: Settings, *, is_resumed: bool = False) -> Fetched:
    """What is behind the URL of an extension; a credential is tried each time.

    With `is_resumed` nobody is asked about what was fetched for the run that is under way.
    Raises CredentialRefusedError, UnreachableError, UnusableError.
    """
    resource, cache = _resource(extension), _cache(settings)
    cached = find_cached(cache, resource.sha256)
    try:
        if cached is None:
            return Fetched(content=download(resource, cache=cache, timeout=_FETCH))
        if (
            resource.is_protected and not is_resumed
        ):  # what is cached is no proof that one may still have it
            probe(resource, timeout=_ASK)
    except CredentialRefusedError as error:
        raise _name_credential(extension, error) from None
    except UnreachableError as error:
        if cached is None:
            raise
        return Fetched(content=cached, warning=f"{error.brief}; the verified copy is used")
    return Fetched(content=cached)


def _require_reachable(extension: Extension, settings: Settings) -> None:
    resource = _resource(extension)
    cached = find_cached(_cache(settings), resource.sha256)
    if cached is not None and not resource.is_protected:
        return
    try:
        probe(resource, timeout=_ASK)
    except CredentialRefusedError as error:
        raise _name_credential(extension, error) from None
    except UnreachableError:
        if cached is None:
            raise


def _name_credential(extension: Extension, error: CredentialRefusedError) -> CredentialRefusedError:
    given = [f"protectedSettings.{key}" for key in FETCH_SETTINGS]
    given = [name for name in given if name.partition(".")[2] in extension.protected_settings]
    if not given:
        brief = f"a credential is needed, and none is given: {error.brief}"
    else:
        brief = f"credential {' and '.join(map(repr, given))} expired or refused: {error.brief}"
    return CredentialRefusedError(
        brief, hint="renew it, put it into the spec, then run: labctl apply"
    )


def _credentials(extension: Extension) -> Sequence[tuple[str, str]]:
    return [
        *(("script", url) for url in _URL.findall(extension.script or "")),
        *walk_texts(extension.settings, "settings"),
        *walk_texts(extension.protected_settings, "protectedSettings"),
    ]


def _resource(extension: Extension) -> Resource:
    protected = extension.protected_settings
    headers: dict[str, str] = {}
    given = protected.get("headers")
    if isinstance(given, dict):
        headers |= {name: str(value) for name, value in given.items()}
    if "bearerToken" in protected:
        headers["Authorization"] = f"Bearer {_text(protected['bearerToken'])}"
    return Resource(
        url=extension.url or "",
        sha256=extension.sha256 or "",
        allow_http=extension.allow_http,
        query=_text(protected.get("sasToken", "")),
        headers=headers,
    )


def _write(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else ""


def _cache(settings: Settings) -> Path:
    return settings.cache_dir / "extensions"
