"""The JSON Schema for editors."""

import json

from labctl.cli.app import main
from labctl.cli.schema import make_schema
from labctl.model.spec import ScaleSetSpec


def test_the_schema_is_printed_as_json(capsys):
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == make_schema()


def test_the_schema_says_what_it_is_and_refuses_unknown_keys():
    schema = make_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == "labctl scale set"
    assert schema["required"] == ["name", "capacity", "image"]
    objects = [part for part in schema["$defs"].values() if part.get("type") == "object"]
    assert all(part["additionalProperties"] is False for part in (schema, *objects))


def test_keys_are_those_of_specs():
    assert list(make_schema()["properties"]) == [
        field.alias for field in ScaleSetSpec.model_fields.values()
    ]


def test_defaults_are_written_as_in_specs():
    definitions = make_schema()["$defs"]
    assert definitions["MachineSize"]["properties"]["memory"]["default"] == "512MiB"
    assert definitions["UpgradePolicy"]["properties"]["healthTimeout"]["default"] == "5m"
    assert make_schema()["properties"]["size"]["default"] == {"vcpus": 1, "memory": "512MiB"}
