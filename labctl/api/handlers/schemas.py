"""JSON Schemas that several handlers of scale sets give to the OpenAPI document."""

from typing import Any

from labctl.model.upgrade import UpgradeCode

BASE = (
    "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute"
    "/virtualMachineScaleSets"
)
SET = f"{BASE}/{{name}}"
INSTANCES = f"{SET}/virtualMachines"
INSTANCE = f"{INSTANCES}/{{instance}}"

Schema = dict[str, Any]

OBJECT: Schema = {"type": "object"}
TEXT: Schema = {"type": "string"}


def make_object(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    """An object that may have further properties."""
    return {"type": "object", "required": list(required), "properties": properties}


def make_list(item: Schema) -> Schema:
    """A page of a list."""
    return make_object(
        ("value",), value={"type": "array", "items": item}, nextLink={"type": "string"}
    )


RESOURCE = make_object(
    ("id", "name", "type", "properties"),
    id=TEXT,
    name=TEXT,
    type=TEXT,
    location=TEXT,
    properties=OBJECT,
)
SCALE_SET = make_object(
    ("id", "name", "type", "location", "properties"),
    id=TEXT,
    name=TEXT,
    type=TEXT,
    location=TEXT,
    etag=TEXT,
    sku=make_object(name=TEXT, capacity={"type": "integer"}),
    properties=OBJECT,
)
INSTANCE_DOCUMENT = make_object(
    ("id", "name", "instanceId", "properties"),
    id=TEXT,
    name=TEXT,
    instanceId=TEXT,
    location=TEXT,
    properties=OBJECT,
)
STATUS = make_object(("code",), code=TEXT, level=TEXT, displayStatus=TEXT, message=TEXT)
INSTANCE_VIEW = make_object(("statuses",), statuses={"type": "array", "items": STATUS})
INSTANCE_IDS = make_object(instanceIds={"type": ["array", "null"], "items": TEXT})
SKIP_TOKEN = {"$skiptoken": "Where the page begins; from a nextLink"}
UPGRADE = make_object(
    ("properties",),
    properties=make_object(
        runningStatus=make_object(code={"enum": [code.value for code in UpgradeCode]}),
        progress=OBJECT,
    ),
)
