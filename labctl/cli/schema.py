"""`labctl schema`: the JSON Schema of specs, for editors."""

import json
from datetime import timedelta
from typing import Any

from typing_extensions import override


def schema() -> None:
    """Print the JSON Schema of specs, for editors and checks.

    Save it beside the specs (labctl schema > labctl.schema.json) and begin each spec with the line

    # yaml-language-server: $schema=labctl.schema.json

    Editors with a YAML language server then complete keys and mark mistakes.
    """
    print(json.dumps(make_schema(), indent=2, ensure_ascii=False))


def make_schema() -> dict[str, Any]:
    """Describe specs as JSON Schema, draft 2020-12."""
    from pydantic.json_schema import GenerateJsonSchema

    from labctl.model.quantity import format_duration, format_size
    from labctl.model.spec import ScaleSetSpec

    class Generator(GenerateJsonSchema):
        """Writes defaults as a spec would, and no titles that only repeat the key."""

        @override
        def encode_default(self, dft: object) -> Any:
            return (
                format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)
            )

        @override
        def field_title_should_be_set(self, schema: object) -> bool:
            return False

    described = ScaleSetSpec.model_json_schema(by_alias=True, schema_generator=Generator)
    for part in (described, *described.get("$defs", {}).values()):
        for field in part.get("properties", {}).values():
            if field.get("type") == "string" and isinstance(field.get("default"), int):
                field["default"] = format_size(field["default"])  # sizes are bytes inside
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "labctl scale set",
        **{key: value for key, value in described.items() if key != "title"},
    }
