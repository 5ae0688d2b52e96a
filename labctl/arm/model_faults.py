"""Faults that the model finds in a spec, at the places of the document they came from."""

from collections.abc import Mapping

from pydantic import ValidationError

from labctl.arm.faults import INVALID, Faults, show
from labctl.arm.labctl_part import LABCTL
from labctl.model.spec_rules import RuleError

_AUTOMATIC = (
    "upgradePolicy",
    "automaticOSUpgradePolicy",
    "enableAutomaticOSUpgrade",
)
# Where Azure refuses the same: its code and its words, which scripts and people look for.
_AZURE: Mapping[tuple[tuple[str | int, ...], str], tuple[str, str]] = {
    (("upgradePolicy", "mode"), "'Rolling' needs health"): (
        "BadRequest",
        "Rolling Upgrade mode is not supported for this Virtual Machine Scale Set because a health "
        "probe or health extension was not provided.",
    ),
    (_AUTOMATIC, "needs health"): (
        "BadRequest",
        "Automatic OS Upgrade is not supported for this Virtual Machine Scale Set because a health "
        "probe or health extension was not specified.",
    ),
    (_AUTOMATIC, "needs image.version"): (
        INVALID,
        "virtualMachineScaleSets with Automatic OS Upgrade enabled must use Platform or Gallery "
        "Image with version set to 'latest'.",
    ),
}
Steps = tuple[str | int, ...]
_CONSEQUENCES = {"default_factory_not_called"}
_SECRET = {"protectedSettings", "customData", "url", "inline", "script"}


def note_model_faults(
    error: ValidationError, spec: object, sources: Mapping[Steps, str], faults: Faults
) -> None:
    """Note each fault with the JSON path of its value."""
    known = {detail.target for detail in faults.found}
    for item in error.errors(include_url=False, include_input=False):
        at: Steps = item["loc"]
        if item["type"] in _CONSEQUENCES:
            continue
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, RuleError):
            for below, message in cause.faults:
                if not _is_consequence(source_of((*at, *below), sources), known):
                    _note_rule((*at, *below), message, sources, faults)
            continue
        target = source_of(at, sources)
        # What could not be read was noted as such, and is missing because of that.
        if not (known and item["type"] == "missing") and not _is_consequence(target, known):
            faults.note(target, _word(item["type"], item["msg"], at, spec))


def _is_consequence(target: str, known: set[str]) -> bool:
    """Is something there, in it or around it wrong already?"""
    return any(target.startswith(each) or each.startswith(target) for each in known)


def _note_rule(at: Steps, message: str, sources: Mapping[Steps, str], faults: Faults) -> None:
    target = source_of(at, sources)
    for (place, begin), (code, words) in _AZURE.items():
        if place == at and message.startswith(begin):
            faults.note_as_azure(target, words, code)
            return
    faults.note(target, f"{message}.")


def source_of(at: Steps, sources: Mapping[Steps, str]) -> str:
    """Where in the document a place of the spec comes from."""
    for length in range(len(at), 0, -1):
        if at[:length] in sources:
            return sources[at[:length]] + label_of(at[length:])
    return f"{LABCTL}{label_of(at)}"


def label_of(steps: Steps) -> str:
    """Write steps as `.dataDisks[0].name`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


def _word(kind: str, message: str, at: Steps, spec: object) -> str:
    if kind == "missing":
        return "is missing."
    if kind == "extra_forbidden":
        return "is unknown."
    rule = message.removeprefix("Value error, ").replace("Input should be", "must be")
    rule = rule.replace("String should", "must").replace("Tuple should", "must")
    if _SECRET & set(at) or kind == "value_error":
        return f"{rule}."
    value = spec
    for step in at:
        try:
            value = value[step]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return f"{rule}."
    return f"{rule}, not {show(value)}."
