"""One model, two faces: nothing is lost on the way, and nothing hostile gets through."""

import contextlib
import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.arm.errors import ArmError
from labctl.arm.ids import parse_id
from labctl.arm.vmss import (
    Secrets,
    Shown,
    merge_document,
    read_scale_set,
    render_scale_set,
)
from labctl.model.health_source import HealthProbe
from labctl.model.spec import ScaleSetSpec
from tests.arm.specs import HOSTILE, specs

ID = parse_id(
    "/subscriptions/s/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachineScaleSets/web"
)
PROBE_ID = (
    "/subscriptions/s/resourceGroups/rg1/providers/Microsoft.Network/loadBalancers/l/probes/p"
)


class Lookup:
    """A gallery in which every offer is a definition, and a load balancer with one probe."""

    def find_image(self, reference: dict[str, Any], target: str) -> tuple[str, str]:
        if "offer" not in reference:
            raise ArmError(404, "ImageNotFound", "no such image", target=target)
        return reference["offer"], reference.get("version", "latest")

    def find_probe(self, identifier: str, target: str) -> HealthProbe:
        if identifier != PROBE_ID:
            raise ArmError(404, "NotFound", "no such probe", target=target)
        return HealthProbe(port=80, request_path="/lb")


def _shown(spec: ScaleSetSpec, **more: Any) -> Shown:
    image = {
        "publisher": "labctl",
        "offer": spec.image.definition,
        "sku": "default",
        "version": spec.image.version,
    }
    return Shown(id=ID, kept={}, image=image, **more)


def _read(document, current=None, rendered=None):
    return read_scale_set(
        document, name="web", current=current, rendered=rendered, references=Lookup()
    )


@given(specs())
def test_a_spec_that_becomes_a_document_and_a_spec_again_is_the_same(spec):
    document = render_scale_set(spec, _shown(spec), secrets=Secrets.REVEALED)
    assert _read(json.loads(json.dumps(document))).spec == spec


@given(specs())
def test_what_get_gave_changes_nothing_when_it_is_put(spec):
    shown = _shown(spec)
    document = render_scale_set(spec, shown)
    reading = _read(merge_document(document, document), spec, document)
    assert reading.spec == spec
    assert reading.host_access == ()
    assert render_scale_set(spec, replace(shown, kept=reading.kept)) == document


@given(specs(), st.integers(0, 1000))
def test_a_put_with_nothing_but_the_size_scales_and_changes_nothing_else(spec, capacity):
    document = render_scale_set(spec, _shown(spec))
    sku = {"name": document["sku"]["name"], "tier": "Standard", "capacity": capacity}
    body = {"location": spec.region, "sku": sku}
    found = _read(merge_document(document, body), spec, document).spec
    assert found == spec.model_copy(update={"capacity": capacity})


@given(specs())
def test_a_put_as_az_strips_it_changes_nothing(spec):
    document = render_scale_set(spec, _shown(spec))
    body = copy.deepcopy(document)
    for key in ("id", "name", "type"):
        del body[key]
    # Its models know neither properties.labctl nor what is read-only, and it drops the image.
    for key in ("labctl", "provisioningState"):
        body["properties"].pop(key, None)
    del body["properties"]["virtualMachineProfile"]["storageProfile"]["imageReference"]
    assert _read(merge_document(document, body), spec, document).spec == spec


_WORDS = {"mode", "repairAction", "rules", "orchestrationMode", "createOption", "publisher", "type"}


def _shout(value: Any, key: str = "") -> Any:
    """The same with other letter case in names and in words, and text for booleans."""
    if isinstance(value, dict):
        return {
            name.upper(): each if name in {"settings", "labctl"} else _shout(each, name)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [_shout(each, key) for each in value]
    if isinstance(value, bool):
        return str(value)
    return value.lower() if key in _WORDS else value


@given(specs())
def test_letter_case_and_the_order_of_disks_change_nothing(spec):
    document = render_scale_set(spec, _shown(spec))
    body = copy.deepcopy(document)
    body["properties"]["virtualMachineProfile"]["storageProfile"]["dataDisks"].reverse()
    assert _read(merge_document(document, _shout(body)), spec, document).spec == spec


@given(specs())
def test_secrets_are_in_no_document_of_the_api(spec):
    text = json.dumps(render_scale_set(spec, _shown(spec)))
    assert "customData" not in json.loads(text)["properties"]["virtualMachineProfile"]["osProfile"]
    assert '"protectedSettings"' not in text


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = [path]
    for key, each in inner:
        here = (*path, key)
        found += _places(each, here) if isinstance(each, dict | list) else [here]
    return found


@given(st.data())
def test_hostile_documents_end_as_errors_of_arm_or_as_specs(data):
    spec = data.draw(specs())
    document = render_scale_set(spec, _shown(spec), secrets=Secrets.REVEALED)
    body = copy.deepcopy(document)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(_places(body)))
        value = data.draw(HOSTILE)
        if not path:
            body = value
            break
        place = body
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
    for current in (None, spec):
        with contextlib.suppress(ArmError):
            merged = merge_document(document if current else {}, body)
            reading = _read(merged, current, document if current else None)
            render_scale_set(reading.spec, replace(_shown(spec), kept=reading.kept))


@given(HOSTILE)
def test_hostile_json_ends_as_an_error_of_arm(value):
    for body in (value, {"properties": value}, {"sku": value, "location": "x"}):
        with pytest.raises(ArmError):
            _read(merge_document({}, body))


def test_what_is_nested_without_end_is_refused():
    value: Any = {}
    for _ in range(100_000):
        value = {"properties": value}
    with pytest.raises(ArmError):
        merge_document({}, value)
