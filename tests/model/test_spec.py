"""The spec, made in code and read from the store."""

import pytest
from pydantic import ValidationError

from labctl.model.health_source import ApplicationHealth, HealthProbe, Protocol
from labctl.model.instance_policy import AutomaticRepairsPolicy, ScaleInPolicy
from labctl.model.machine import DataDisk, ImageReference
from labctl.model.setup import CustomData, Extension
from labctl.model.spec import Network, ScaleSetSpec
from labctl.model.upgrade_policy import RollingUpgradePolicy, UpgradeMode, UpgradePolicy


def _spec(**fields):
    return ScaleSetSpec(name="web", capacity=3, image=ImageReference(definition="tiny"), **fields)


def test_a_spec_is_the_same_after_the_store():
    spec = _spec(
        data_disks=(DataDisk(name="data", size="1GiB", mount_point="/data"),),
        extensions=(Extension(name="a", script="true"),),
        custom_data=CustomData(inline=""),
    )
    assert ScaleSetSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("protocol", "port"), [(Protocol.HTTP, 80), (Protocol.HTTPS, 443)], ids=str
)
def test_web_probes_have_the_usual_port_by_default(protocol, port):
    assert HealthProbe(protocol=protocol, request_path="/").port == port
    assert HealthProbe(protocol=protocol, request_path="/", port=8080).port == 8080


@pytest.mark.parametrize(
    "fields",
    [
        {"protocol": Protocol.TCP},
        {"protocol": Protocol.TCP, "port": 22, "request_path": "/"},
        {"protocol": Protocol.HTTP},
        {"protocol": Protocol.HTTPS, "port": 443},
    ],
)
def test_probes_need_what_their_protocol_needs(fields):
    with pytest.raises(ValidationError):
        HealthProbe(**fields)


RICH = {"port": 8080, "requestPath": "/health", "typeHandlerVersion": "2.0"}


def test_application_health_is_binary_unless_told_otherwise():
    assert not ApplicationHealth(port=80, request_path="/").is_rich
    assert ApplicationHealth.model_validate(RICH).is_rich


@pytest.mark.parametrize("version", [1.0, 2.0])
def test_a_version_without_quotes_is_understood(version):
    made = ApplicationHealth.model_validate({**RICH, "typeHandlerVersion": version})
    assert made.type_handler_version == str(version)


@pytest.mark.parametrize("period", ["1s", "4h", "PT4H"])
def test_a_grace_period_may_last_four_hours(period):
    assert ApplicationHealth.model_validate({**RICH, "gracePeriod": period}).grace_period


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"gracePeriod": "4h1s"}, "more than 0s and at most 4h, not 4h1s"),
        ({"gracePeriod": "0s"}, "at most 4h, not 0s"),
        ({"gracePeriod": "1m", "typeHandlerVersion": "1.0"}, "only for typeHandlerVersion 2.0"),
        ({"typeHandlerVersion": "3.0"}, "'1.0' or '2.0'"),
        ({"typeHandlerVersion": 2}, "'1.0' or '2.0'"),
        ({"interval": "4s"}, "greater than or equal to 5 seconds"),
        ({"interval": "61s"}, "less than or equal to 1 minute"),
        ({"numberOfProbes": 0}, "greater than or equal to 1"),
        ({"numberOfProbes": 25}, "less than or equal to 24"),
    ],
)
def test_application_health_outside_its_bounds_is_refused(fields, reason):
    with pytest.raises(ValidationError, match=reason):
        ApplicationHealth.model_validate({**RICH, **fields})


@pytest.mark.parametrize("field", [{"typeHandlerVersion": "2.0"}, {"gracePeriod": "1m"}], ids=str)
def test_a_probe_from_outside_knows_no_rich_states(field):
    with pytest.raises(ValidationError, match="Extra inputs"):
        HealthProbe.model_validate({"port": 8080, "requestPath": "/health", **field})


MIB = 2**20
BROKEN = {
    "custom data without source": (
        "exactly one of 'inline' and 'file'",
        lambda: CustomData(inline=None),
    ),
    "custom data with two sources": (
        "exactly one of 'inline' and 'file'",
        lambda: CustomData(inline="x", file="y"),
    ),
    "custom data too large": ("65536 bytes; at most 65535", lambda: CustomData(inline="x" * 65536)),
    "extension without source": (
        "exactly one of 'script', 'file', 'url' and 'playbook'",
        lambda: Extension(name="a"),
    ),
    "extension with two sources": (
        "exactly one of 'script', 'file', 'url' and 'playbook'",
        lambda: Extension(name="a", script="x", file="y"),
    ),
    "extension with empty script": ("must not be empty", lambda: Extension(name="a", script=" \n")),
    "extension too large": ("at most 1048576", lambda: Extension(name="a", script="x" * (MIB + 1))),
    "extension after an unknown one": (
        "there is no extension 'b'",
        lambda: _spec(
            extensions=(Extension(name="a", script="x", provision_after_extensions=("b",)),)
        ),
    ),
    "subnet of network user": (
        "only for networks of type nat",
        lambda: Network(subnet="10.87.1.0/24"),
    ),
    "repairs without a health source": (
        "needs health.applicationHealth or health.probe",
        lambda: _spec(automatic_repairs_policy=AutomaticRepairsPolicy(enabled=True)),
    ),
    "grace period of two hours": (
        "less than or equal to",
        lambda: AutomaticRepairsPolicy(grace_period="2h"),
    ),
    "two scale-in rules": (
        "at most 1 item",
        lambda: ScaleInPolicy(rules=("OldestVM", "NewestVM")),
    ),
    "no scale-in rule": ("at least 1 item", lambda: ScaleInPolicy(rules=())),
    "disk of half a MiB": ("whole number of MiB", lambda: DataDisk(name="data", size="1537KiB")),
    "mount point going up": (
        "absolute path without",
        lambda: DataDisk(name="data", size="1MiB", mount_point="/a/../b"),
    ),
    "mount point ending in /": (
        "absolute path without",
        lambda: DataDisk(name="data", size="1MiB", mount_point="/a/"),
    ),
    "mount point with //": (
        "absolute path without",
        lambda: DataDisk(name="data", size="1MiB", mount_point="//a"),
    ),
    "rolling without health": (
        "needs health.applicationHealth or health.probe",
        lambda: _spec(upgrade_policy=UpgradePolicy(mode=UpgradeMode.ROLLING)),
    ),
    "new instances beside data disks": (
        "cannot be had with dataDisks",
        lambda: _spec(
            data_disks=(DataDisk(name="a", size="1MiB"),),
            upgrade_policy=UpgradePolicy(
                rolling_upgrade_policy=RollingUpgradePolicy(max_surge=True)
            ),
        ),
    ),
    "two disks of one name": (
        "is taken by entry 1",
        lambda: _spec(
            data_disks=(DataDisk(name="a", size="1MiB"), DataDisk(name="a", size="1MiB"))
        ),
    ),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_broken_rules_are_refused(rule):
    reason, make = BROKEN[rule]
    with pytest.raises(ValidationError, match=reason):
        make()


def test_the_largest_custom_data_is_taken():
    assert CustomData(inline="x" * 65535).inline == "x" * 65535
