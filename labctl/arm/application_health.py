"""The application health extension and `health.applicationHealth`."""

from datetime import timedelta

from pydantic import ValidationError

from labctl.arm.errors import Document
from labctl.arm.faults import Faults
from labctl.model.health_source import ApplicationHealth
from labctl.model.quantity import format_duration, parse_duration

PUBLISHER = "Microsoft.ManagedServices"
KINDS = {
    (PUBLISHER.lower(), "applicationhealthlinux"),
    (PUBLISHER.lower(), "applicationhealthwindows"),
}
_EXACT = (("interval", "intervalInSeconds"), ("gracePeriod", "gracePeriod"))


def read_health(settings: Document, version: object, at: str, faults: Faults) -> Document:
    """The extension in the shape of the YAML spec; the model checks its values."""
    found: Document = {}
    protocol = faults.text(settings.get("protocol"), f"{at}.settings.protocol")
    if protocol is not None:
        found["protocol"] = protocol.lower()
    for key in ("port", "numberOfProbes"):
        number = faults.number(settings.get(key), f"{at}.settings.{key}")
        if number is not None:
            found[key] = number
    path = faults.text(settings.get("requestPath"), f"{at}.settings.requestPath")
    if path is not None and not (path == "" and found.get("protocol") == "tcp"):
        found["requestPath"] = path
    for key, name in _EXACT:
        seconds = faults.number(settings.get(name), f"{at}.settings.{name}")
        if seconds is not None and not 0 <= seconds < 10**9:
            faults.note(f"{at}.settings.{name}", "is no number of seconds that can be waited.")
        elif seconds is not None:
            found[key] = timedelta(seconds=seconds)
    text = faults.text(version, f"{at}.typeHandlerVersion")
    if text is not None:
        found["typeHandlerVersion"] = text
    return found


def render_health(health: ApplicationHealth, kept: Document) -> Document:
    """The public settings: those that the client sent while they mean the same."""
    version = health.type_handler_version
    faults = Faults()
    read = read_health(kept, version, "", faults)
    if kept and not faults.found:
        exact = {key: getattr(health, name) for key, name in
                 (("interval", "interval"), ("gracePeriod", "grace_period"))}  # fmt: skip
        said = {
            key: value for key, value in exact.items() if key in read and _ceil(value) == read[key]
        }
        try:
            if ApplicationHealth.model_validate(read | said, by_name=False) == health:
                return kept
        except ValidationError:
            pass  # kept settings that no longer fit are written anew
    settings: Document = {"protocol": health.protocol.value, "port": health.port}
    if health.request_path is not None:
        settings["requestPath"] = health.request_path
    settings["intervalInSeconds"] = _seconds(health.interval)
    settings["numberOfProbes"] = health.number_of_probes
    if health.grace_period is not None:
        settings["gracePeriod"] = _seconds(health.grace_period)
    return settings


def render_exact(health: ApplicationHealth) -> Document:
    """What whole seconds cannot say, in the shape of the YAML spec."""
    values = {"interval": health.interval, "gracePeriod": health.grace_period}
    return {
        key: format_duration(value)
        for key, value in values.items()
        if value is not None and value.microseconds
    }


def choose_exact(read: Document, exact: Document, exact_was: Document) -> Document:
    """Put exact lengths in the place of whole seconds, where these do not tell otherwise."""
    found = dict(read)
    for key, text in exact.items():
        try:
            value = parse_duration(text)
        except ValueError:
            found[key] = text  # the model explains
            continue
        is_new = text != exact_was.get(key)
        if is_new or (key in read and _ceil(value) == read[key]):
            found[key] = value
    return found


def _seconds(value: timedelta) -> int:
    return -(-value // timedelta(seconds=1))


def _ceil(value: timedelta | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=_seconds(value))
