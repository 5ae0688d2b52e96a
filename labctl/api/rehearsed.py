"""What would come of a deployment: it is carried out in a transaction that nobody keeps."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from labctl.api.deployments import DEPLOYMENT_TYPE
from labctl.api.errand import Errand, find_operation_id
from labctl.arm.errors import ArmError
from labctl.arm.template import Template
from labctl.arm.template_resources import PlannedResource
from labctl.arm.what_if import compare, leave_ours_out
from labctl.controller.clock import now as read_clock
from labctl.store.arm_resources import load_resources
from labctl.store.rehearsal import rehearse

Json = Any  # what json.loads gives

# Writers wait meanwhile, and give up after 30 s. What is not tried by then is known only once it
# has been deployed.
_LONGEST = timedelta(seconds=5)
_NESTED = 10  # templates in a template that are looked at

# Refusals that hold whatever has been deployed before.
_FINAL = frozenset({"AuthorizationFailed", "InvalidResourceType", "NotSupportedInLab"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """What would come of one resource."""

    resource: PlannedResource
    before: Mapping[str, Json] | None = None  # None: it would be new
    after: Mapping[str, Json] | None = None
    error: ArmError | None = None
    is_known: bool = True  # False: it hangs on something that takes its time


def rehearse_all(errand: Errand, template: Template) -> list[Rehearsed]:
    """What would come of each resource, in the order of deployment."""
    found: list[Rehearsed] = []
    pending: set[str] = set()  # what takes its time, and what hangs on it
    wanted = [each for each in template.resources if each.is_wanted]
    before = {each.key: _find(errand, each) for each in wanted}
    with rehearse(errand.desk.database) as database:
        aside = errand.aside(replace(errand.desk, database=database))
        nested = 0
        until = read_clock() + _LONGEST
        for resource in wanted:
            nested += resource.is_deployment
            is_too_much = resource.is_deployment and nested > _NESTED
            if is_too_much or not until - _LONGEST <= read_clock() <= until:
                pending.add(resource.key)
                found.append(
                    Rehearsed(resource=resource, before=before[resource.key], is_known=False)
                )
                continue
            each = Rehearsed(resource=resource, before=before[resource.key])
            try:
                if not _put(aside, template, resource):
                    pending.add(resource.key)
            except ArmError as error:
                if resource.needs.isdisjoint(pending) or error.code in _FINAL:
                    each = replace(each, error=error)
                else:
                    each = replace(each, is_known=False)
                    pending.add(resource.key)
            found.append(each)
        # Read at the end: a part that is deployed by itself changes what it is part of.
        return [replace(each, after=_find(aside, each.resource)) for each in found]


def tell_changes(
    errand: Errand, rehearsed: list[Rehearsed], group: str, *, has_payloads: bool
) -> list[dict[str, Json]]:
    """The changes in the words of Azure's what-if, and what would stay as it is."""
    changes = [_tell_change(each, has_payloads=has_payloads) for each in rehearsed]
    known = {each.resource.key for each in rehearsed}
    with errand.desk.database.read() as connection:
        others = load_resources(connection, group=group)
    for other in others:
        if other.key in known or other.type.lower() == DEPLOYMENT_TYPE.lower():
            continue
        change: dict[str, Json] = {"resourceId": other.id, "changeType": "Ignore"}
        if has_payloads:
            change["before"] = {"id": other.id, "name": other.name, "type": other.type}
        changes.append(change)
    return changes


def _put(errand: Errand, template: Template, resource: PlannedResource) -> bool:
    """Returns whether it is done; False: it takes its time."""
    version = resource.api_version
    body = template.make_body(
        resource, lambda identifier: errand.read(identifier, api_version=version)
    )
    answer = errand.send("PUT", resource.id, api_version=version, body=body)
    return find_operation_id(answer) is None


def _find(errand: Errand, resource: PlannedResource) -> dict[str, Json] | None:
    try:
        return errand.read(resource.id, api_version=resource.api_version)
    except ArmError:
        return None


def _tell_change(each: Rehearsed, *, has_payloads: bool) -> dict[str, Json]:
    resource = each.resource
    change: dict[str, Json] = {"resourceId": resource.id}
    if not each.is_known:
        reason = (
            "it hangs on a resource that is known only once it has been deployed, or there are too "
            "many resources to try them all"
        )
        return {**change, "changeType": "Unsupported", "unsupportedReason": reason}
    if resource.is_deployment:
        reason = "what a template in a template changes is not looked into"
        return {**change, "changeType": "Unsupported", "unsupportedReason": reason}
    if not has_payloads:
        return {**change, "changeType": "Deploy"}
    version = {"apiVersion": resource.api_version}
    after = leave_ours_out({**version, **(each.after or {})})
    if each.before is None:
        return {**change, "changeType": "Create", "after": after}
    before = leave_ours_out({**version, **each.before})
    delta = compare(before, after)
    change |= {"changeType": "Modify" if delta else "NoChange", "before": before, "after": after}
    return {**change, "delta": delta}
