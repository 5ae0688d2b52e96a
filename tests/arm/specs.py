"""Specs of every kind, and documents of every kind of malice."""

from typing import Any

from hypothesis import assume
from hypothesis import strategies as st
from pydantic import ValidationError

from labctl.model.spec import ScaleSetSpec

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 42 + "A"
_NAMES = st.sampled_from(["a", "web-1", "data", "lun1", "cache"])
_LONG = st.integers(1, 7_200_000).map(lambda ms: f"{ms}ms")
_TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1)
_SCRIPTS = st.one_of(_TEXT, st.sampled_from(["#!/bin/sh\ntrue\n", "[concat('a')]", "x\r\ny"]))
_SETTINGS = st.dictionaries(
    st.sampled_from(["port", "script", "commandToExecute", "timestamp", "fileUris"]),
    st.one_of(st.integers(-5, 5), _TEXT, st.none(), st.lists(st.booleans(), max_size=2)),
    max_size=3,
)


def _maybe(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


def _between(least: int, most: int) -> st.SearchStrategy[str]:
    """Seconds as text, with halves."""
    return st.integers(least * 2, most * 2).map(lambda halves: f"{halves * 500}ms")


_PROBE = _maybe(numberOfProbes=st.integers(1, 24), interval=_between(5, 60))
_TCP = _PROBE.map(lambda probe: {"protocol": "tcp", "port": 22, **probe})
_HTTP = _PROBE.map(lambda probe: {"protocol": "https", "requestPath": "/x", **probe})
_RICH = st.tuples(_HTTP, _between(1, 9000)).map(
    lambda both: {**both[0], "typeHandlerVersion": "2.0", "gracePeriod": both[1]}
)
_HEALTH = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"applicationHealth": st.one_of(_TCP, _HTTP, _RICH)}),
    st.fixed_dictionaries({"probe": st.one_of(_TCP, _HTTP)}),
)
_SIZE = st.one_of(
    st.integers(1, 5000).map(lambda size: f"{size}MiB"),
    st.integers(1, 50).map(lambda size: f"{size}GiB"),
)
_DISK = st.fixed_dictionaries(
    {"name": _NAMES, "size": _SIZE},
    optional={"fileSystem": st.just("ext4"), "mountPoint": st.sampled_from(["/data", "/srv/x"])},
)
_SOURCE = st.one_of(
    st.fixed_dictionaries({"script": _SCRIPTS}),
    st.just({"playbook": "/srv/site.yml"}),
    st.just({"url": "https://files.example/x", "sha256": "0" * 64}),
    st.just({"url": "http://10.1.1.1/x", "sha256": "0" * 64, "allowHttp": True}),
)
_EXTENSION = st.tuples(
    _SOURCE,
    st.fixed_dictionaries(
        {"name": st.sampled_from(["setup", "HealthExtension", "last one"])},
        optional={
            "settings": _SETTINGS,
            "protectedSettings": _SETTINGS,
            "suppressFailures": st.booleans(),
            "forceUpdateTag": st.just("7"),
            "timeout": _LONG,
        },
    ),
).map(lambda both: {**both[0], **both[1]})


@st.composite
def _extensions(draw: st.DrawFn) -> list[dict[str, Any]]:
    found = draw(st.lists(_EXTENSION, max_size=3, unique_by=lambda each: each["name"]))
    for place, each in enumerate(found[1:]):
        if draw(st.booleans()):
            each["provisionAfterExtensions"] = [found[place]["name"]]
    return found


_HOOK = st.one_of(
    st.fixed_dictionaries({"command": st.just(["drain", "x"])}, optional={"timeout": _LONG}),
    st.just({"script": "systemctl stop web", "onFailure": "Continue"}),
)
_ROLLING = _maybe(
    maxBatchInstancePercent=st.integers(5, 100),
    maxUnhealthyInstancePercent=st.integers(5, 100),
    maxUnhealthyUpgradedInstancePercent=st.integers(0, 100),
    pauseTimeBetweenBatches=_LONG,
    prioritizeUnhealthyInstances=st.booleans(),
    enableCrossZoneUpgrade=st.booleans(),
    rollbackFailedInstancesOnPolicyBreach=st.booleans(),
    maxSurge=st.booleans(),
)
_UPGRADE = _maybe(
    mode=st.sampled_from(["Manual", "Automatic", "Rolling"]),
    rollingUpgradePolicy=_ROLLING,
    automaticOSUpgradePolicy=_maybe(
        enableAutomaticOSUpgrade=st.booleans(),
        disableAutomaticRollback=st.booleans(),
        useRollingUpgradePolicy=st.booleans(),
    ),
    healthTimeout=_between(5, 7200),
    maintenanceWindows=st.just([{"start": "22:00", "duration": "3h", "days": ["Sat"]}]),
    approval=st.sampled_from(
        [{}, {"command": ["ask"]}, {"webhook": {"url": "https://x.example", "secretFile": "/s"}}]
    ),
    canary=_maybe(instances=st.integers(1, 9), bakeTime=_LONG),
    hooks=_maybe(drain=_HOOK, undrain=_HOOK),
)
_FIELDS = {
    "capacity": st.integers(0, 1000),
    "image": st.sampled_from([{"definition": "tiny"}, {"definition": "web", "version": "1.2.3"}]),
}
_OPTIONAL = {
    "region": st.sampled_from(["local", "east-1"]),
    "zones": st.lists(st.sampled_from(["1", "2", "rack-a"]), unique=True),
    "faultDomainCount": st.integers(1, 20),
    "updateDomainCount": st.integers(1, 20),
    "size": _maybe(
        vcpus=st.integers(1, 64), memory=st.integers(64, 4096).map(lambda size: f"{size}MiB")
    ),
    "osDisk": _maybe(size=_SIZE),
    "dataDisks": st.lists(_DISK, max_size=3, unique_by=lambda disk: disk["name"]),
    "sshKeys": st.sampled_from([[], [KEY], [KEY, f"{KEY} me@host"]]),
    "customData": st.fixed_dictionaries({"inline": _TEXT}),
    "extensions": _extensions(),
    "extensionsTimeBudget": _between(900, 7200),
    "health": _HEALTH,
    "network": st.sampled_from([{}, {"type": "nat", "subnet": "10.87.1.0/24"}]),
    "timeouts": _maybe(boot=_LONG, customData=_LONG, shutdown=_LONG),
    "upgradePolicy": _UPGRADE,
    "scaleInPolicy": st.sampled_from([{}, {"rules": ["OldestVM"]}]),
    "automaticRepairsPolicy": _maybe(
        enabled=st.booleans(),
        gracePeriod=_between(1, 5400),
        repairAction=st.sampled_from(["Replace", "Reimage", "Restart"]),
    ),
    "notifications": st.just([{"name": "ops", "url": "https://x.example/y", "events": ["all"]}]),
}
_WINDOWS = {
    **{key: each for key, each in _OPTIONAL.items() if key not in {"customData", "dataDisks"}},
    "windowsConfiguration": st.sampled_from(
        [{}, {"enableAutomaticUpdates": False}, {"drivers": "virtio"}]
    ),
    "customData": st.just({"inline": "#cloud-config\n"}),
    "dataDisks": st.just([{"name": "e", "size": "70MiB", "mountPoint": "E:"}]),
}


@st.composite
def specs(draw: st.DrawFn) -> ScaleSetSpec:
    """Whatever the model takes."""
    optional = draw(st.sampled_from([_OPTIONAL, _OPTIONAL, _WINDOWS]))
    value = draw(st.fixed_dictionaries(_FIELDS, optional=optional))
    if optional is _WINDOWS:
        value.setdefault("windowsConfiguration", {})
    if not (value.get("health") or {}):
        value.pop("automaticRepairsPolicy", None)
        policy = value.get("upgradePolicy", {})
        policy.pop("mode", None)
        policy.get("automaticOSUpgradePolicy", {}).pop("enableAutomaticOSUpgrade", None)
    try:
        return ScaleSetSpec.model_validate({"name": "web", **value}, by_name=False)
    except ValidationError:
        assume(False)
        raise


_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(10**400),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        [
            "PT5M",
            "P",
            "PT99999999999H",
            "IyEvYmluL3NoCg==",
            "latest",
            "-1GiB",
            "\0",
            "\ud800",
            "********",
        ]
    ),
)
HOSTILE = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["id", "name", "properties", "lun", "size", "x"]), inner, max_size=3
        ),
    ),
    max_leaves=6,
)
