"""The document of a scale set as a spec: every fault at once, each with its JSON path."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from pydantic import ValidationError

from labctl.arm import application_health
from labctl.arm.errors import Document
from labctl.arm.extensions import EXTENSIONS, read_extensions
from labctl.arm.faults import Faults, show
from labctl.arm.fields import ROOT
from labctl.arm.host_access import find_host_access
from labctl.arm.keeping import keep
from labctl.arm.labctl_part import LABCTL, check_shape
from labctl.arm.merge import tidy
from labctl.arm.model_faults import note_model_faults
from labctl.arm.os_profile import read_os_profile
from labctl.arm.reader import Reader, References, child, items
from labctl.arm.sizes import find_size
from labctl.arm.storage import read_storage
from labctl.arm.vmss_render import TYPE
from labctl.arm.webhooks import unmask_webhooks
from labctl.model.instance_policy import RepairAction, ScaleInRule
from labctl.model.spec import ScaleSetSpec
from labctl.model.upgrade_policy import UpgradeMode

P = "properties"
NETWORK = f"{P}.virtualMachineProfile.networkProfile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a document means."""

    spec: ScaleSetSpec
    kept: Document  # for Shown, and to be stored
    host_access: tuple[str, ...]  # JSON paths of what is new and reaches into the host


def read_scale_set(
    document: object,
    *,
    name: str,
    current: ScaleSetSpec | None,
    rendered: Document | None,
    references: References,
) -> Reading:
    """Read a whole document, as `merge_document` gives it.

    `rendered` is what the lab shows of `current`: what the document has not changed, or leaves out
    because it is a secret, stays as it is. Raises ArmError with a target for each fault.
    """
    reader = Reader(
        document=tidy(document),
        name=name,
        current=current,
        rendered=tidy(rendered) if rendered is not None else {},
        references=references,
    )
    reader.kept = keep(reader.document, ROOT, reader.faults)
    part = reader.faults.mapping(reader.at(f"{P}.labctl"), LABCTL) or {}
    reader.labctl = copy.deepcopy(check_shape(part, reader.faults))
    unmask_webhooks(reader.labctl, current)
    was = reader.was(f"{P}.labctl")
    reader.labctl_was = was if isinstance(was, dict) else {}
    _read_top(reader)
    _read_policies(reader)
    read_os_profile(reader)
    read_storage(reader)
    _read_extensions(reader)
    _read_probe(reader)
    _add_plain(reader)
    spec = _make_spec(reader)
    return Reading(
        spec=spec,
        kept=reader.kept,
        host_access=find_host_access(spec, current, reader.sources),
    )


def _make_spec(reader: Reader) -> ScaleSetSpec:
    """What was read, as the model has it. Raises ArmError with all that is wrong."""
    try:
        spec = ScaleSetSpec.model_validate(reader.spec, by_alias=True, by_name=False)
    except ValidationError as error:
        note_model_faults(error, reader.spec, reader.sources, reader.faults)
        reader.faults.check()
        raise AssertionError("a spec that is wrong for no reason") from error
    reader.faults.check()
    return spec


def _read_top(reader: Reader) -> None:
    faults, document = reader.faults, reader.document
    given = faults.text(document.get("name"), "name")
    if given is not None and given.lower() != reader.name.lower():
        faults.note("name", f"is {show(given)}, but the request is for {show(reader.name)}.")
    kind = faults.text(document.get("type"), "type")
    if kind is not None and kind.lower() != TYPE.lower():
        faults.note("type", f"must be {TYPE}, not {show(kind)}.")
    reader.put(("name",), reader.name.lower(), "name")
    location = faults.text(document.get("location"), "location")
    if location is not None:
        reader.put(("region",), location.lower().replace(" ", ""), "location")
    elif reader.current is not None:
        reader.put(("region",), reader.current.region, "location")
    else:
        faults.note("location", "is missing; any name of a region will do, such as 'local'.")
    zones = faults.list(document.get("zones"), "zones")
    if zones is not None:
        found = [faults.text(zone, f"zones[{place}]") for place, zone in enumerate(zones)]
        reader.put(("zones",), [zone for zone in found if zone is not None], "zones")
    sku = faults.mapping(document.get("sku"), "sku") or {}
    for key in ("name", "capacity"):
        if sku.get(key) is None:
            faults.note(f"sku.{key}", "is missing.")
    reader.put(("capacity",), faults.number(sku.get("capacity"), "sku.capacity"), "sku.capacity")
    name = faults.text(sku.get("name"), "sku.name")
    if name is not None:
        size = find_size(name)
        reader.keep("sku.name", name)
        if size is None:
            faults.note(
                "sku.name",
                f"is no size of this lab: {show(name)}. Any can be had as Lab_VCPUS_MIB, such as "
                "Lab_2_4096; the vmSizes of the location list those of Azure that are known.",
            )
        else:
            text = f"{size.memory}B"
            reader.put(("size",), {"vcpus": size.vcpus, "memory": text}, "sku.name")
    tags = faults.mapping(document.get("tags"), "tags")
    if tags is not None:
        if len(tags) > 50:
            faults.note("tags", f"has {len(tags)} tags; at most 50 are allowed.")
        for key, value in list(tags.items())[:50]:
            if not isinstance(value, str):
                faults.note(f"tags.{key}", f"must be a string, not {show(value)}.")


def _read_policies(reader: Reader) -> None:
    faults = reader.faults
    path = f"{P}.platformFaultDomainCount"
    reader.put(("faultDomainCount",), faults.number(reader.at(path), path), path)
    rolling = ("upgradePolicy", "rollingUpgradePolicy")
    automatic = ("upgradePolicy", "automaticOSUpgradePolicy")
    repairs = ("automaticRepairsPolicy",)
    kinds: tuple[tuple[tuple[str, ...], str, Callable[[object, str], object]], ...] = (
        (("upgradePolicy",), "mode", _word_of(UpgradeMode, faults)),
        (rolling, "maxBatchInstancePercent", faults.number),
        (rolling, "maxUnhealthyInstancePercent", faults.number),
        (rolling, "maxUnhealthyUpgradedInstancePercent", faults.number),
        (rolling, "pauseTimeBetweenBatches", reader.length),
        (rolling, "prioritizeUnhealthyInstances", faults.flag),
        (rolling, "enableCrossZoneUpgrade", faults.flag),
        (rolling, "maxSurge", faults.flag),
        (rolling, "rollbackFailedInstancesOnPolicyBreach", faults.flag),
        (automatic, "enableAutomaticOSUpgrade", faults.flag),
        (automatic, "disableAutomaticRollback", faults.flag),
        (automatic, "useRollingUpgradePolicy", faults.flag),
        (repairs, "enabled", faults.flag),
        (repairs, "gracePeriod", reader.length),
        (repairs, "repairAction", _word_of(RepairAction, faults)),
        (("scaleInPolicy",), "rules", _words_of(ScaleInRule, faults)),
    )
    for above, key, read in kinds:
        path = ".".join((P, *above, key))
        value = read(reader.at(path), path)
        if key == "useRollingUpgradePolicy" and value is None:
            value = False  # as in Azure; in YAML its absence means true
        if key == "rules" and value == []:
            value = None  # Azure's way to say Default
        reader.put((*above, key), value, path)


def _word_of(words: type[StrEnum], faults: Faults) -> Callable[[object, str], object]:
    """Reads one of these words in any case, as Azure does; the model explains any other."""
    known = {word.value.lower(): word.value for word in words}

    def read(value: object, path: str) -> object:
        text = faults.text(value, path)
        return text if text is None else known.get(text.lower(), text)

    return read


def _words_of(words: type[StrEnum], faults: Faults) -> Callable[[object, str], object]:
    known = {word.value.lower(): word.value for word in words}

    def read(value: object, path: str) -> object:
        found = faults.list(value, path)
        if found is None:
            return None
        return [known.get(each.lower(), each) if isinstance(each, str) else each for each in found]

    return read


def _read_extensions(reader: Reader) -> None:
    faults = reader.faults
    path = f"{P}.virtualMachineProfile.extensionProfile.extensionsTimeBudget"
    length = reader.length(reader.at(path), path)
    reader.put(("extensionsTimeBudget",), length, path)
    shown = reader.was(EXTENSIONS)
    entries = faults.list(reader.at(EXTENSIONS), EXTENSIONS) or []
    found = read_extensions(
        entries, reader.current, shown if isinstance(shown, list) else [], faults
    )
    _add_timeouts(reader, found.specs)
    reader.put(("extensions",), found.specs, EXTENSIONS)
    for place, target in enumerate(found.targets):
        at: tuple[str | int, ...] = ("extensions", place)
        reader.sources[at] = f"{target}.settings"
        for key in ("suppressFailures", "forceUpdateTag", "provisionAfterExtensions"):
            reader.sources[*at, key] = f"{target}.{key}"
        reader.sources[*at, "name"] = f"{target.removesuffix('.properties')}.name"
        reader.sources[*at, "protectedSettings"] = f"{target}.protectedSettings"
        reader.sources[*at, "settings"] = f"{target}.settings"
    if found.kept:
        reader.keep(EXTENSIONS, found.kept)
    if found.health is not None:
        exact = child(child(reader.labctl, "health"), "applicationHealth")
        exact_was = child(child(reader.labctl_was, "health"), "applicationHealth")
        health = application_health.choose_exact(found.health, exact, exact_was)
        here = ("health", "applicationHealth")
        reader.put(here, health, f"{found.health_target}.settings")
        version = f"{found.health_target}.typeHandlerVersion"
        reader.sources[*here, "typeHandlerVersion"] = version
        reader.sources[*here, "interval"] = f"{found.health_target}.settings.intervalInSeconds"


def _add_timeouts(reader: Reader, specs: list[Document]) -> None:
    by_name = {str(spec["name"]): spec for spec in specs}
    stale = reader.labctl_was.get("extensions")
    for place, entry in enumerate(items(reader.labctl.get("extensions"))):
        at = f"{LABCTL}.extensions[{place}]"
        name = entry.get("name") if isinstance(entry, dict) else None
        spec = by_name.get(name) if isinstance(name, str) else None
        if spec is not None and isinstance(entry, dict) and "timeout" in entry:
            spec["timeout"] = entry["timeout"]
            reader.sources["extensions", specs.index(spec), "timeout"] = f"{at}.timeout"
        elif spec is None and entry not in items(stale):
            reader.faults.note(f"{at}.name", f"names no extension: {show(name)}.")


def _read_probe(reader: Reader) -> None:
    path = f"{NETWORK}.healthProbe.id"
    identifier = reader.faults.text(reader.at(path), path)
    given = child(reader.labctl, "health").get("probe")
    given_was = child(reader.labctl_was, "health").get("probe")
    if identifier is None:
        if given is not None:
            reader.put(("health", "probe"), given, f"{LABCTL}.health.probe")
        return
    reader.keep(path, identifier)
    if given is not None and given != given_was:
        reader.faults.note(path, f"and '{LABCTL}.health.probe' are given; one is enough.")
        return
    if "applicationHealth" in child(reader.spec, "health"):
        return  # the extension tells; the reference is only kept
    current = reader.current
    if current is not None and current.health.probe and identifier == reader.was(path):
        probe: object = current.health.probe
    else:
        probe = reader.look_up(lambda: reader.references.find_probe(identifier, path))
    reader.put(("health", "probe"), probe, path)


def _add_plain(reader: Reader) -> None:
    """What `properties.labctl` says beyond what the parts above have taken from it."""
    for key in ("updateDomainCount", "network", "timeouts", "notifications", "clusterManager"):
        reader.put((key,), reader.labctl.get(key), f"{LABCTL}.{key}")
    for key, value in child(reader.labctl, "upgradePolicy").items():
        reader.put(("upgradePolicy", key), value, f"{LABCTL}.upgradePolicy.{key}")
