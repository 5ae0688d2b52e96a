"""Files with scale sets: templates are read as they were written, whatever is in them."""

import contextlib
import copy
import json
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from labctl.arm.errors import ArmError
from labctl.arm.portable import ImportFaultError, make_resource, make_template, read_file
from tests.arm.specs import HOSTILE, specs

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@given(specs())
def test_a_spec_in_a_template_is_read_as_it_was(spec):
    template = json.loads(json.dumps(make_template(make_resource(spec, {}))))
    offset = spec.health.application_health is not None
    parameters = {
        f"protectedSettings{number + offset}": dict(extension.protected_settings)
        for number, extension in enumerate(spec.extensions)
        if extension.protected_settings
    }
    found = read_file(template, parameters=parameters, image=None, now=NOW)
    assert found.reading.spec == spec
    assert found.path == "resources[0]"


@given(specs(), st.data())
def test_hostile_files_end_as_errors_of_arm_or_as_specs(spec, data):
    document = copy.deepcopy(make_template(make_resource(spec, {})))
    path = data.draw(
        st.sampled_from(
            [("resources",), ("parameters",), ("resources", 0), ("resources", 0, "name")]
        )
    )
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = data.draw(HOSTILE)
    for value in (document, data.draw(HOSTILE)):
        with contextlib.suppress(ArmError, ImportFaultError):
            read_file(value, parameters={}, image=None, now=NOW)
