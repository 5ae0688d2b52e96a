"""A scale set keeps the places that its instances have."""

import pytest

from labctl.controller.places import refuse_other_places
from labctl.errors import RefusedError
from labctl.model.machine import ImageReference
from labctl.model.spec import ScaleSetSpec


def make_spec(**changes):
    image = ImageReference(definition="tiny")
    return ScaleSetSpec(name="web", capacity=2, image=image, **changes)


@pytest.mark.parametrize(
    ("before", "after", "brief", "detail"),
    [
        ({}, {"zones": ("1",)}, "zones of scale set 'web'", "it is [], the spec says [1]"),
        (
            {"zones": ("1", "2")},
            {"zones": ("2", "1")},
            "zones of scale set 'web'",
            "it is [1, 2], the spec says [2, 1]",
        ),
        ({}, {"fault_domain_count": 2}, "faultDomainCount of", "it is 1, the spec says 2"),
        ({}, {"update_domain_count": 4}, "updateDomainCount of", "it is 5, the spec says 4"),
    ],
)
def test_zones_and_domains_cannot_change(before, after, brief, detail):
    with pytest.raises(RefusedError) as caught:
        refuse_other_places(make_spec(**before), make_spec(**(before | after)))
    assert caught.value.brief.startswith(brief)
    assert caught.value.detail == detail


def test_all_else_may_change():
    old = make_spec(zones=("1",))
    refuse_other_places(old, old.model_copy(update={"capacity": 5}))
