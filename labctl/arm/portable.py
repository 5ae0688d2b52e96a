"""Scale sets in files: as templates that can be deployed, and what such files mean."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

from labctl.arm.errors import ArmError, Document, invalid
from labctl.arm.extensions import EXTENSIONS, Secrets
from labctl.arm.ids import ResourceId, parse_id
from labctl.arm.merge import merge_document
from labctl.arm.probe import read_probe
from labctl.arm.reader import child, items
from labctl.arm.template import Template
from labctl.arm.template_fault import Fault
from labctl.arm.template_parse import escape as escape_text
from labctl.arm.template_resources import PlannedResource
from labctl.arm.template_scope import Setting
from labctl.arm.vmss_read import Reading, read_scale_set
from labctl.arm.vmss_render import TYPE, Shown, render_scale_set
from labctl.model.health_source import HealthProbe
from labctl.model.spec import ScaleSetSpec

SCHEMA = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"
API_VERSION = "2024-11-01"
PUBLISHER, SKU = "labctl", "default"  # of every image definition of a lab
_NOWHERE = str(UUID(int=0))
_BALANCERS = "microsoft.network/loadbalancers"
_PROBE = re.compile(r"(.+/loadbalancers/[^/]+)/probes/([^/]+)", re.IGNORECASE)


def make_resource(spec: ScaleSetSpec, kept: Document) -> Document:
    """A scale set as a resource of a template: without what only a running lab can tell."""
    image: Document = {
        "publisher": PUBLISHER,
        "offer": spec.image.definition,
        "sku": SKU,
        "version": spec.image.version,
    }
    identifier = ResourceId(
        subscription=_NOWHERE,
        group=PUBLISHER,
        namespace="Microsoft.Compute",
        parts=(("virtualMachineScaleSets", spec.name),),
    )
    shown = Shown(id=identifier, kept=kept, image=image)
    document = render_scale_set(spec, shown, secrets=Secrets.MASKED)
    del document["id"]
    child(document, "properties").pop("provisioningState", None)
    order = ("type", "name", "location")
    return {
        "type": TYPE,
        "apiVersion": API_VERSION,
        **{key: document[key] for key in order if key != "type"},
        **{key: value for key, value in document.items() if key not in order},
    }


def make_template(resource: Document) -> Document:
    """A template with that resource; what is secret in it becomes parameters."""
    parameters: Document = {}
    escaped = escape(resource)
    assert isinstance(escaped, dict)  # noqa: S101  it was one
    place: Document = escaped
    *above, last = EXTENSIONS.split(".")
    for step in above:
        place = child(place, step)
    for number, entry in enumerate(items(place.get(last))):
        properties = child(entry, "properties") if isinstance(entry, dict) else {}
        if "protectedSettings" in properties:
            name = f"protectedSettings{number}"
            parameters[name] = {"type": "secureObject"}
            properties["protectedSettings"] = f"[parameters('{name}')]"
    return {
        "$schema": SCHEMA,
        "contentVersion": "1.0.0.0",
        "parameters": parameters,
        "resources": [escaped],
    }


def escape(value: object) -> object:
    """The same for a template, in which a text in brackets would be an expression."""
    if isinstance(value, str):
        return escape_text(value)
    if isinstance(value, dict):
        return {str(escape(key)): escape(each) for key, each in value.items()}
    return [escape(each) for each in value] if isinstance(value, list) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What a file means."""

    reading: Reading
    path: str  # of the scale set in the file: "resources[2]", or "" where the file is it


class ImportFaultError(Exception):
    """What is wrong with a scale set in a file; `path` is where that stands in it."""

    def __init__(self, path: str, error: ArmError) -> None:
        super().__init__(error.message)
        self.path = path
        self.error = error


def read_file(
    document: object,
    *,
    parameters: Mapping[str, object],
    image: tuple[str, str] | None,
    now: datetime,
) -> Imported:
    """Read a resource, or a template with one scale set.

    `image` is what to run in the place of the file's reference. Raises ArmError for the file as a
    whole, ImportFaultError for the scale set in it.
    """
    if not isinstance(document, dict):
        raise invalid("The file must hold a JSON object: a scale set, or a template with one.")
    prefix = ""
    properties = child(document, "properties")
    if "template" in properties:  # what is sent to deploy one
        given = child(properties, "parameters")
        parameters = {
            **{
                name: value.get("value") for name, value in given.items() if isinstance(value, dict)
            },
            **parameters,
        }
        document, prefix = child(properties, "template"), "properties.template."
    if "resources" not in document:
        kind, name = document.get("type", TYPE), document.get("name")
        if not isinstance(kind, str) or kind.lower() != TYPE.lower():
            raise invalid(f"The file must hold a resource of the type {TYPE}.", target="type")
        if not isinstance(name, str):
            raise invalid(
                "'name' is missing, or is no string; the body of a PUT has none, so add one.",
                target="name",
            )
        return _read(document, name, "", _FileReferences(image=image, balancers={}))
    template = _open(document, parameters, now)
    found = [each for each in template.resources if each.type.lower() == TYPE.lower()]
    if len(found) != 1:
        names = ", ".join(each.name for each in found) or "none"
        raise invalid(
            f"The template must have one scale set; it has {len(found)}: {names}.",
            target="resources",
        )
    balancers = {
        each.key: partial(_make_body, template, each)
        for each in template.resources
        if each.type.lower() == _BALANCERS
    }
    body = _make_body(template, found[0])
    references = _FileReferences(image=image, balancers=balancers)
    return _read(body, found[0].name, prefix + found[0].path, references)


def _open(document: Document, parameters: Mapping[str, object], now: datetime) -> Template:
    setting = Setting(
        subscription_id=_NOWHERE,
        tenant_id=_NOWHERE,
        group=PUBLISHER,
        location="local",
        name="import",
        url="https://localhost",
        now=now,
        seed=_NOWHERE,
    )
    given = {name: {"value": value} for name, value in parameters.items()}
    return Template(document, given, setting)


def _make_body(template: Template, resource: PlannedResource) -> Document:
    def find(identifier: str) -> Document:
        raise Fault(f"'{identifier}' is not deployed yet, so nothing of it can be referred to")

    return template.make_body(resource, find)


def _read(body: Document, name: str, path: str, references: "_FileReferences") -> Imported:
    try:
        reading = read_scale_set(
            merge_document({}, body),
            name=name,
            current=None,
            rendered=None,
            references=references,
        )
    except ArmError as error:
        raise ImportFaultError(path, error) from error
    return Imported(reading=reading, path=path)


@dataclass(frozen=True, slots=True, kw_only=True)
class _FileReferences:
    """Finds what a file alone can tell."""

    image: tuple[str, str] | None
    balancers: Mapping[str, Callable[[], Document]]

    def find_image(self, reference: Document, target: str) -> tuple[str, str]:
        if self.image is not None:
            return self.image
        offer, version = reference.get("offer"), reference.get("version", "latest")
        if reference.get("publisher") == PUBLISHER and isinstance(offer, str):
            return offer, str(version)
        if "id" in reference:
            names = dict(parse_id(reference["id"], target=target).parts)
            folded = {kind.lower(): name for kind, name in names.items()}
            if "galleries" in folded and "images" in folded:
                return folded["images"].lower(), folded.get("versions", "latest")
        raise invalid(
            f"'{target}' names no image of a lab; pull or import one, and name its definition "
            "with --image.",
            target=target,
        )

    def find_probe(self, identifier: str, target: str) -> HealthProbe:
        match = _PROBE.fullmatch(identifier)
        make = self.balancers.get(match.group(1).lower(), dict) if match else dict
        for probe in items(child(make(), "properties").get("probes")):
            name = probe.get("name") if isinstance(probe, dict) else None
            if not match or not isinstance(probe, dict) or not isinstance(name, str):
                continue
            if name.lower() == match.group(2).lower():
                return read_probe(child(probe, "properties"), target=target)
        raise invalid(
            f"'{target}' names a probe that the file does not have; write it as "
            "properties.labctl.health.probe, as in a YAML spec.",
            target=target,
        )
