"""What a template asks for, and whether what is given will do."""

from collections.abc import Mapping

from labctl.arm.errors import ArmError, not_supported
from labctl.arm.template_fault import Fault, Json, invalid_template
from labctl.arm.template_scope import Evaluator
from labctl.arm.template_values import are_same, find_key, tell_type

_TYPES: dict[str, type] = {
    "string": str,
    "securestring": str,
    "int": int,
    "bool": bool,
    "object": dict,
    "secureobject": dict,
    "array": list,
}
_LIMITS = ("minLength", "maxLength", "minValue", "maxValue")
MAX_PARAMETERS = 256  # Azure's bound


def is_secure(declared: Json) -> bool:
    """Is the value a secret?"""
    return isinstance(declared, dict) and str(_pick(declared, "type")).lower().startswith("secure")


def is_parameter_type(kind: Json) -> bool:
    """Is this the name of a type that parameters have?"""
    return isinstance(kind, str) and kind.lower() in _TYPES


def is_of_type(value: Json, kind: Json) -> bool:
    """Is the value of a type that templates know by this name?"""
    wanted = _TYPES.get(kind.lower()) if isinstance(kind, str) else None
    if wanted is None or (wanted is int and isinstance(value, bool)):
        return False
    return isinstance(value, wanted)


def resolve_parameters(
    declared: Mapping[str, Json], given: Mapping[str, Json], evaluator: Evaluator
) -> dict[str, Json]:
    """The value of each parameter, by its name in the template; the evaluator knows them then.

    Raises ArmError (InvalidTemplate, InvalidDeploymentParameterValue) that names the parameter.
    """
    if len(declared) > MAX_PARAMETERS:
        raise invalid_template(f"there are more than {MAX_PARAMETERS} parameters")
    values = _match(declared, given)
    for name, declaration in declared.items():
        path = f"parameters.{name}"
        if not isinstance(declaration, dict) or not is_parameter_type(_pick(declaration, "type")):
            known = ", ".join(_TYPES)
            raise invalid_template(f"the type of a parameter is one of {known}", path=path)
        if name in values:
            evaluator.parameters[name] = values[name]
        elif find_key(declaration, "defaultValue") is not None:
            evaluator.defaults[name] = _pick(declaration, "defaultValue")
        elif _pick(declaration, "nullable") is True:
            evaluator.parameters[name] = None
        else:
            raise invalid_template(
                f"The value for the template parameter '{name}' is not provided; give one, or a "
                "defaultValue in the template",
                path=path,
            )
    evaluator.has_clock = True
    try:
        for name in evaluator.defaults:
            evaluator.take_default(name)
    except Fault as fault:
        raise invalid_template(str(fault), path="parameters") from fault
    finally:
        evaluator.has_clock = False
    for name, declaration in declared.items():
        _check(name, declaration, evaluator.parameters[name])
    return {name: evaluator.parameters[name] for name in declared}


def _match(declared: Mapping[str, Json], given: Mapping[str, Json]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    over: list[str] = []
    for name, wrapped in given.items():
        key = find_key(dict(declared), name)
        if key is None:
            over.append(name)
            continue
        if isinstance(wrapped, dict) and find_key(wrapped, "reference") is not None:
            raise not_supported(
                f"The parameter '{name}' refers to a key vault, and a lab has none: give a value.",
                target=f"parameters.{name}.reference",
            )
        inner = find_key(wrapped, "value") if isinstance(wrapped, dict) else None
        if inner is None:
            raise ArmError(
                400,
                "InvalidDeploymentParameterValue",
                f"The parameter '{name}' is not given as an object with a 'value'.",
                target=f"parameters.{name}",
            )
        found[key] = wrapped[inner]
    if over:
        names = ", ".join(f"'{name[:100]}'" for name in over[:20])
        known = ", ".join(declared) or "none"
        raise invalid_template(
            f"The template parameters {names} are not valid; they are not present in the template. "
            f"Its parameters are: {known[:2000]}"
        )
    return found


def _check(name: str, declaration: dict[str, Json], value: Json) -> None:
    kind = _pick(declaration, "type")
    if value is None and _pick(declaration, "nullable") is True:
        return
    if not is_of_type(value, kind):
        raise _wrong(name, f"it is {tell_type(value)}, but its type is {kind}")
    allowed = _pick(declaration, "allowedValues")
    if isinstance(allowed, list) and not _are_allowed(value, allowed):
        known = ", ".join(repr(each) for each in allowed[:50])
        shown = "the value" if is_secure(declaration) else repr(value)[:200]
        raise _wrong(name, f"{shown} is not part of the allowed values: {known[:1000]}")
    least, most, lowest, highest = (_pick(declaration, limit) for limit in _LIMITS)
    if isinstance(value, str | list):
        if isinstance(least, int) and len(value) < least:
            raise _wrong(name, f"its length is {len(value)}, and {least} is the least")
        if isinstance(most, int) and len(value) > most:
            raise _wrong(name, f"its length is {len(value)}, and {most} is the most")
    elif isinstance(value, int) and not isinstance(value, bool):
        if isinstance(lowest, int) and value < lowest:
            raise _wrong(name, f"{value} is less than {lowest}")
        if isinstance(highest, int) and value > highest:
            raise _wrong(name, f"{value} is more than {highest}")


def _are_allowed(value: Json, allowed: list[Json]) -> bool:
    if isinstance(value, list) and not any(isinstance(each, list) for each in allowed):
        return all(_are_allowed(each, allowed) for each in value)  # a selection of them
    if isinstance(value, str):
        return value.lower() in {each.lower() for each in allowed if isinstance(each, str)}
    return any(are_same(value, each) for each in allowed)


def _pick(declaration: dict[str, Json], name: str) -> Json:
    key = find_key(declaration, name)
    return None if key is None else declaration[key]


def _wrong(name: str, reason: str) -> ArmError:
    return ArmError(
        400,
        "InvalidDeploymentParameterValue",
        f"The value of the template parameter '{name}' is not valid: {reason}.",
        target=f"parameters.{name}",
    )
