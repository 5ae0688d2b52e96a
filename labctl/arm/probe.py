"""A load balancer's health probe as the health probe of a scale set."""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypeGuard

from labctl.arm.errors import ArmError, invalid
from labctl.model.health_source import HealthProbe, Protocol

Json = Any  # what json.loads gives

_INTERVAL = 15  # seconds; Azure's default
_BOUNDS = {"intervalInSeconds": (5, 60), "probeThreshold": (1, 24), "numberOfProbes": (1, 24)}
_PORTS = (1, 65535)
_PATH = re.compile(r"/[!-~]*")


def read_probe(properties: Mapping[str, Json], *, target: str) -> HealthProbe:
    """What instances are asked. Raises ArmError for what the controller's prober cannot do."""
    protocol = check_probe(properties, target=target)
    interval = _read_bounded(properties, "intervalInSeconds", target) or _INTERVAL
    # Both are kept in step by clients; Azure's balancers go by the threshold.
    number = (
        _read_bounded(properties, "probeThreshold", target)
        or _read_bounded(properties, "numberOfProbes", target)
        or 1
    )
    path = properties.get("requestPath")
    return HealthProbe(
        protocol=protocol,
        port=properties["port"],
        request_path=path if protocol is not Protocol.TCP else None,
        interval=timedelta(seconds=interval),
        number_of_probes=number,
    )


def check_probe(properties: Mapping[str, Json], *, target: str) -> Protocol:
    """What any probe must have, used or not. Raises ArmError (InvalidParameter)."""
    given = properties.get("protocol")
    known = {each.value: each for each in Protocol}
    protocol = known.get(given.lower()) if isinstance(given, str) else None
    if protocol is None:
        raise _refuse(target, "protocol", "must be Http, Https or Tcp", given)
    port = properties.get("port")
    if not is_whole(port) or not _PORTS[0] <= port <= _PORTS[1]:
        raise _refuse(target, "port", f"must be {_PORTS[0]} to {_PORTS[1]}", port)
    path = properties.get("requestPath")
    if protocol is Protocol.TCP:
        if path not in (None, ""):
            raise _refuse(target, "requestPath", "must not be given for Tcp", path)
    elif not isinstance(path, str) or not _PATH.fullmatch(path):
        raise _refuse(
            target,
            "requestPath",
            f"must be a path such as /health for {given}, without blanks",
            path,
        )
    for key in ("intervalInSeconds", "probeThreshold", "numberOfProbes"):
        value = properties.get(key)
        if value is not None and (not is_whole(value) or value < 1):
            raise _refuse(target, key, "must be a whole number from 1 on", value)
    return protocol


def is_whole(value: Json) -> TypeGuard[int]:
    """A JSON number without a fraction; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def _read_bounded(properties: Mapping[str, Json], key: str, target: str) -> int | None:
    value = properties.get(key)
    if value is None:
        return None
    low, high = _BOUNDS[key]
    if not is_whole(value) or not low <= value <= high:
        raise _refuse(target, key, f"must be {low} to {high} for instances to be asked", value)
    return int(value)


def _refuse(target: str, key: str, rule: str, value: Json) -> ArmError:
    text = repr(value)[:60]
    return invalid(f"'{key}' of the probe '{target}' {rule}, not {text}.", target=f"{target}.{key}")
