"""Deployments: what a client asks for, what is kept of one, and what is shown."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from labctl.api.call import Call
from labctl.api.desk import Desk
from labctl.api.errand import Errand
from labctl.api.groups import Group, check_group
from labctl.api.route import Routes
from labctl.arm.errors import ArmError, ErrorDetail, invalid, not_supported
from labctl.arm.loose_json import tighten
from labctl.arm.template import Setting, Template
from labctl.arm.template_parameters import is_parameter_type
from labctl.arm.template_parse import is_expression
from labctl.arm.template_resources import PlannedResource
from labctl.arm.tracked import merge_tags
from labctl.model.access import Principal, Scope
from labctl.store.arm_resources import ArmResource, find_resource
from labctl.store.operations import Operation, find_operation

Json = Any  # what json.loads gives

DEPLOYMENT_TYPE = "Microsoft.Resources/deployments"
DEPLOYMENT = "deployment"  # kind of operation
ACTIVE = frozenset({"Accepted", "Running"})  # provisioning states
_NAME = re.compile(r"[-\w.()]{1,64}", re.ASCII)
_LINKS = ("templateLink", "parametersLink")
_SECRETS = frozenset({"customdata", "userdata", "protectedsettings", "adminpassword", "password"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be deployed: all that an operation needs to know, and to remember."""

    template: dict[str, Json]
    parameters: dict[str, Json]  # {name: {"value": ...}}
    setting: Setting
    principal: Principal
    api_version: str
    tags: dict[str, str]  # of the deployment itself

    @property
    def goal(self) -> dict[str, Json]:
        """As it is kept while the deployment runs; it holds secrets."""
        setting = self.setting
        return {
            "template": self.template,
            "parameters": self.parameters,
            "group": setting.group,
            "location": setting.location,
            "tags": dict(setting.tags),
            "name": setting.name,
            "url": setting.url,
            "now": setting.now.isoformat(),
            "seed": setting.seed,
            "principal": {
                "id": self.principal.id,
                "name": self.principal.name,
                "scope": self.principal.scope.value,
            },
            "apiVersion": self.api_version,
        }

    def read(self) -> Template:
        """The template with its parameters. Raises ArmError for what it cannot mean."""
        return Template(self.template, self.parameters, self.setting)

    def make_errand(self, desk: Desk, routes: Routes, now: datetime) -> Errand:
        """Who sends the calls."""
        return Errand(
            desk=desk,
            routes=routes,
            principal=self.principal,
            base_url=self.setting.url,
            now=now,
            request_id=self.setting.seed,
        )


def make_id(desk: Desk, group: str, name: str) -> str:
    """The id of a deployment."""
    return (
        f"/subscriptions/{desk.subscription_id}/resourceGroups/{group}/providers/"
        f"{DEPLOYMENT_TYPE}/{name}"
    )


def read_wish(desk: Desk, call: Call, group: Group) -> tuple[Wish, dict[str, Json]]:
    """What a request asks for, and its properties. Raises ArmError."""
    name = call.parameters["name"]
    if not _NAME.fullmatch(name):
        raise invalid(
            f"The deployment name '{name[:200]}' is not 1 to 64 letters, digits and -_.().",
            code="InvalidDeploymentName",
            target="name",
        )
    document = _read_document(call)
    properties = document.get("properties")
    if not isinstance(properties, dict):
        raise invalid("'properties' must be an object.", code="InvalidDeployment")
    for link in _LINKS:
        if properties.get(link) is not None:
            raise not_supported(
                f"'{link}' is not fetched by a lab; put the template and its parameters into the "
                "request (az: --template-file).",
                target=f"properties.{link}",
            )
    mode = properties.get("mode", "Incremental")
    if not isinstance(mode, str) or mode.lower() not in {"incremental", "complete"}:
        raise invalid(
            f"The mode {str(mode)[:60]!r} is not 'Incremental'.",
            code="InvalidDeployment",
            target="properties.mode",
        )
    if mode.lower() == "complete":
        raise not_supported(
            "The mode 'Complete' deletes what the template does not name, machines of the lab "
            "with it; use 'Incremental' and delete what is over yourself.",
            target="properties.mode",
        )
    template, given = properties.get("template"), properties.get("parameters")
    if not isinstance(template, dict):
        raise invalid(
            "'properties.template' must be a template.",
            code="InvalidTemplate",
            target="properties.template",
        )
    if given is not None and not isinstance(given, dict):
        raise invalid(
            "'properties.parameters' must be an object.",
            code="InvalidDeploymentParameterValue",
            target="properties.parameters",
        )
    given = _unwrap(given or {})
    group_tags = group.document.get("tags")
    wish = Wish(
        template=template,
        parameters=given,
        setting=Setting(
            subscription_id=desk.subscription_id,
            tenant_id=desk.tenant_id,
            group=group.name,
            location=group.location,
            tags=group_tags if isinstance(group_tags, dict) else {},
            name=name,
            url=call.base_url,
            now=call.now,
            seed=call.request_id,
        ),
        principal=call.principal,
        api_version=call.api_version,
        tags=merge_tags({}, document.get("tags")).get("tags", {}),
    )
    return wish, properties


def load_wish(desk: Desk, goal: Mapping[str, Json]) -> Wish:
    """What an operation remembers."""
    who = goal["principal"]
    return Wish(
        template=goal["template"],
        parameters=goal["parameters"],
        setting=Setting(
            subscription_id=desk.subscription_id,
            tenant_id=desk.tenant_id,
            group=goal["group"],
            location=goal["location"],
            tags=goal["tags"],
            name=goal["name"],
            url=goal["url"],
            now=datetime.fromisoformat(goal["now"]),
            seed=goal["seed"],
        ),
        principal=Principal(id=who["id"], name=who["name"], scope=Scope(who["scope"])),
        api_version=goal["apiVersion"],
        tags={},
    )


def refuse_unknown(errand: Errand, template: Template) -> None:
    """Raises ArmError when a resource is of a type that nothing in this lab answers for."""
    errors: list[ArmError] = []
    for resource in template.resources:
        if not resource.is_wanted:
            continue
        try:
            errand.find_route("PUT", resource.id)
        except ArmError as error:
            errors.append(error)
    refuse_all(errors, template)


def refuse_all(errors: list[ArmError], template: Template) -> None:
    """Raises the one error, or all of them as one."""
    if not errors:
        return
    if len(errors) == 1:
        raise errors[0]
    raise ArmError(
        400,
        "InvalidTemplateDeployment",
        f"The template deployment is not valid: {len(errors)} of its {len(template.resources)} "
        "resources cannot be deployed. See inner errors for details.",
        details=tuple(
            ErrorDetail(code=each.code, message=each.message, target=each.target) for each in errors
        ),
    )


def make_properties(wish: Wish, template: Template) -> dict[str, Json]:
    """What is shown of a deployment from its beginning on."""
    wanted = [each for each in template.resources if each.is_wanted]
    by_key = {each.key: each for each in template.resources}
    text = json.dumps(wish.template, sort_keys=True)
    return {
        "templateHash": str(int(hashlib.sha256(text.encode()).hexdigest()[:16], 16)),
        "parameters": template.open_parameters,
        "mode": "Incremental",
        "correlationId": wish.setting.seed,
        "providers": _list_providers(wanted, wish.setting.location),
        "dependencies": [
            {**_name(each), "dependsOn": [_name(by_key[key]) for key in sorted(each.needs)]}
            for each in wanted
            if each.needs
        ],
    }


def find_active(connection: Connection, row: ArmResource | None) -> Operation | None:
    """The operation that carries a deployment out, while it does."""
    if row is None or row.document["properties"]["provisioningState"] not in ACTIVE:
        return None
    operation = find_operation(connection, row.document["operation"])
    return operation if operation is not None and operation.is_open else None


def get_deployment(connection: Connection, desk: Desk, group: str, name: str) -> ArmResource:
    """The deployment of this name. Raises ArmError (404 DeploymentNotFound)."""
    row = find_resource(connection, make_id(desk, group, name))
    if row is None:
        raise ArmError(
            404, "DeploymentNotFound", f"Deployment '{name[:64]}' could not be found.", target=name
        )
    return row


def get_called(connection: Connection, desk: Desk, call: Call) -> ArmResource:
    """The deployment that a call names. Raises ArmError (404)."""
    group = check_group(connection, desk, call.parameters["group"])
    return get_deployment(connection, desk, group.name, call.parameters["name"])


def render(connection: Connection, row: ArmResource) -> dict[str, Json]:
    """A deployment as clients see it."""
    properties = row.document["properties"]
    if properties["provisioningState"] in ACTIVE and find_active(connection, row) is None:
        # Its operation ended without it, which only a fault of labctl does.
        ended = find_operation(connection, row.document["operation"])
        error = None if ended is None else ended.error
        properties = {**properties, "provisioningState": "Failed", "error": error}
    return {
        "id": row.id,
        "name": row.name,
        "type": DEPLOYMENT_TYPE,
        **({"tags": row.document["tags"]} if row.document.get("tags") else {}),
        "properties": properties,
    }


def hide_secrets(template: Json) -> Json:
    """The template as it may be shown again: without the secrets that it spells out."""
    if isinstance(template, list):
        return [hide_secrets(each) for each in template]
    if not isinstance(template, dict):
        return template
    kind = str(template.get("type")).lower()
    is_secure = kind.startswith("secure")
    return {
        key: hide_secrets(value)
        for key, value in template.items()
        if not (is_secure and key.lower() == "defaultvalue")
        and not (key.lower() in _SECRETS and not _is_harmless(value))
    }


def _is_harmless(value: Json) -> bool:
    # {"type": "securestring"} declares a parameter of that name; an expression spells nothing out.
    if isinstance(value, dict):
        return is_parameter_type(value.get("type"))
    return isinstance(value, str) and is_expression(value) and "parameters(" in value


def _read_document(call: Call) -> dict[str, Json]:
    try:
        return call.read_document()
    except ArmError as first:
        try:
            text = tighten(call.content.decode())
            return replace(call, content=text.encode()).read_document()
        except (ArmError, UnicodeDecodeError):
            raise first from None


def _unwrap(given: dict[str, Json]) -> dict[str, Json]:
    """A parameter file as a whole is taken, too: its parameters are meant."""
    if "$schema" in given and isinstance(given.get("parameters"), dict):
        return dict(given["parameters"])
    return given


def _list_providers(resources: list[PlannedResource], location: str) -> list[dict[str, Json]]:
    kinds: dict[str, list[str]] = {}
    for resource in resources:
        namespace, _, kind = resource.type.partition("/")
        if kind not in kinds.setdefault(namespace, []):
            kinds[namespace].append(kind)
    return [
        {
            "namespace": namespace,
            "resourceTypes": [{"resourceType": each, "locations": [location]} for each in types],
        }
        for namespace, types in kinds.items()
    ]


def _name(resource: PlannedResource) -> dict[str, Json]:
    return {"id": resource.id, "resourceType": resource.type, "resourceName": resource.name}
