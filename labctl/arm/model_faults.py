"""Faults that the model finds in a spec, at the places of the document they came from."""

from collections.abc import Mapping

from pydantic import ValidationError

from labctl.arm.faults import Faults, show
from labctl.arm.labctl_part import LABCTL
from labctl.model.spec_rules import RuleError

Steps = tuple[str | int, ...]
_CONSEQUENCES = {"default_factory_not_called"}
_SECRET = {"protectedSettings", "customData", "url", "inline", "script"}


def note_model_faults(
    error: ValidationError, spec: object, sources: Mapping[Steps, str], faults: Faults
) -> None:
    """Note each fault with the JSON path of its value."""
    for item in error.errors(include_url=False, include_input=False):
        at: Steps = item["loc"]
        if item["type"] in _CONSEQUENCES:
            continue
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, RuleError):
            for below, message in cause.faults:
                faults.note(source_of((*at, *below), sources), f"{message}.")
            continue
        faults.note(source_of(at, sources), _word(item["type"], item["msg"], at, spec))


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
