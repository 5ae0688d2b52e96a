from datetime import timedelta

import pytest

from labctl.arm.errors import ArmError
from labctl.arm.probe import read_probe
from labctl.model.health_source import HealthProbe, Protocol


def test_a_probe_of_a_template_is_a_health_probe():
    properties = {
        "protocol": "Http",
        "port": 80,
        "requestPath": "/health",
        "intervalInSeconds": 15,
        "numberOfProbes": 2,
    }
    assert read_probe(properties, target="p") == HealthProbe(
        protocol=Protocol.HTTP,
        port=80,
        request_path="/health",
        interval=timedelta(seconds=15),
        number_of_probes=2,
    )


def test_the_threshold_counts_more_than_the_number_and_azures_defaults_hold():
    properties = {"protocol": "tcp", "port": 22, "probeThreshold": 3, "numberOfProbes": 2}
    found = read_probe(properties, target="p")
    assert (found.number_of_probes, found.interval) == (3, timedelta(seconds=15))
    assert read_probe({"protocol": "Tcp", "port": 22}, target="p").number_of_probes == 1


@pytest.mark.parametrize(
    ("change", "target", "told"),
    [
        ({"intervalInSeconds": 120}, "p.intervalInSeconds", "must be 5 to 60 .* not 120"),
        ({"intervalInSeconds": 4}, "p.intervalInSeconds", "not 4"),
        ({"numberOfProbes": 25}, "p.numberOfProbes", "must be 1 to 24"),
        ({"port": 0}, "p.port", "1 to 65535, not 0"),
        ({"port": True}, "p.port", "not True"),
        ({"port": None}, "p.port", "not None"),
        ({"protocol": "Udp"}, "p.protocol", "Http, Https or Tcp, not 'Udp'"),
        ({"requestPath": None}, "p.requestPath", "must be a path"),
        ({"requestPath": "/a b"}, "p.requestPath", "without blanks, not '/a b'"),
        ({"protocol": "Tcp"}, "p.requestPath", "must not be given for Tcp"),
    ],
)
def test_what_the_prober_cannot_do_is_refused_with_value_and_bound(
    change: dict[str, object], target: str, told: str
):
    properties = {"protocol": "Http", "port": 80, "requestPath": "/", **change}
    with pytest.raises(ArmError, match=told) as refused:
        read_probe(properties, target="p")
    assert (refused.value.status, refused.value.target) == (400, target)
