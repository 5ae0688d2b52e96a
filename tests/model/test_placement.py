"""Where instances belong."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from labctl.model.machine import ImageReference
from labctl.model.placement import Placement, is_placed, place
from labctl.model.spec import ScaleSetSpec
from tests.model.test_cluster import make_cluster


def make_spec(zones=(), faults=1, updates=5, **changes):
    return ScaleSetSpec(
        name="web",
        capacity=3,
        image=ImageReference(definition="tiny"),
        zones=tuple(zones),
        fault_domain_count=faults,
        update_domain_count=updates,
        **changes,
    )


def test_zones_go_in_turn_by_ordinal_and_domains_in_turn_within_their_zone():
    spec = make_spec("ba", faults=2, updates=3)
    places = [place(spec, n) for n in range(8)]
    assert [(p.zone, p.fault_domain, p.update_domain) for p in places] == [
        ("b", 0, 0),
        ("a", 0, 0),
        ("b", 1, 1),
        ("a", 1, 1),
        ("b", 0, 2),
        ("a", 0, 2),
        ("b", 1, 0),
        ("a", 1, 0),
    ]
    assert [p.zone_number for p in places[:3]] == [0, 1, 0]
    assert places[2].text == "zone b, fault domain 1, update domain 1"


def test_without_zones_there_are_one_fault_domain_and_five_update_domains():
    spec = make_spec()
    assert place(spec, 7) == Placement(zone=None, zone_number=0, fault_domain=0, update_domain=2)
    assert place(spec, 7).text == "fault domain 0, update domain 2"
    assert not is_placed(spec)
    assert is_placed(make_spec("a"))
    assert is_placed(make_spec(faults=2))
    assert is_placed(make_cluster())


@given(st.integers(1, 16), st.integers(1, 20), st.integers(1, 20), st.integers(0, 400))
def test_any_number_is_spread_evenly_over_zones_and_their_domains(zones, faults, updates, count):
    spec = make_spec([f"z{n}" for n in range(zones)], faults, updates)
    places = [place(spec, n) for n in range(count)]
    check_even(Counter(p.zone for p in places), zones)
    for zone in spec.zones:
        inside = [p for p in places if p.zone == zone]
        check_even(Counter(p.fault_domain for p in inside), faults)
        check_even(Counter(p.update_domain for p in inside), updates)


def check_even(found: Counter, kinds: int) -> None:
    counts = [*found.values(), *[0] * (kinds - len(found))]
    assert max(counts) - min(counts) <= 1
