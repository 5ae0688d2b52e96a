"""Every function of templates that needs nothing but what it is given."""

# ruff: noqa: ARG001, ARG005 - every function is given the budget, and few ask for room in it
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from labctl.arm import template_text as text
from labctl.arm import template_values as values
from labctl.arm.template_dates import add_duration
from labctl.arm.template_fault import Budget, Fault, Json

MANY = 10_000  # arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """One function, and how many arguments it takes."""

    call: Callable[[Sequence[Json], Budget], Json]
    least: int
    most: int


def check_count(name: str, given: int, least: int, most: int) -> None:
    """Raises Fault when there are too few or too many arguments."""
    if least <= given <= most:
        return
    wanted = str(least) if least == most else f"{least} to {most}" if most < MANY else f"{least}+"
    raise Fault(f"{name} takes {wanted} arguments, not {given}")


def _be(value: Json) -> Callable[[Sequence[Json], Budget], Json]:
    return lambda given, budget: value


def _of_text(change: Callable[[str], str]) -> Callable[[Sequence[Json], Budget], Json]:
    return lambda given, budget: change(values.take_text(given[0]))


def _coalesce(given: Sequence[Json], budget: Budget) -> Json:
    return next((each for each in given if each is not None), None)


def _equals(given: Sequence[Json], budget: Budget) -> Json:
    return values.are_same(given[0], given[1])


def _add_to_moment(given: Sequence[Json], budget: Budget) -> Json:
    texts = values.take_texts(given)
    return add_duration(texts[0], texts[1], texts[2] if len(texts) > 2 else None)


def _list_keys(given: Sequence[Json], budget: Budget) -> Json:
    return sorted(values.take_object(given[0]))


# By name: the function, the least and the most arguments. Their names count in any case.
_ALL: dict[str, tuple[Callable[[Sequence[Json], Budget], Json], int, int]] = {
    "add": (values.calculate(operator.add), 2, 2),
    "array": (values.make_array, 1, 1),
    "base64": (text.encode_base64, 1, 1),
    "base64ToJson": (text.decode_json, 1, 1),
    "base64ToString": (text.decode_base64, 1, 1),
    "bool": (values.to_bool, 1, 1),
    "coalesce": (_coalesce, 1, MANY),
    "concat": (text.join_values, 1, MANY),
    "contains": (values.contains, 2, 2),
    "createArray": (lambda given, budget: list(given), 0, MANY),
    "createObject": (values.make_object, 0, MANY),
    "dataUri": (text.make_data_uri, 1, 1),
    "dateTimeAdd": (_add_to_moment, 2, 3),
    "div": (values.calculate(values.divide), 2, 2),
    "empty": (values.is_empty, 1, 1),
    "endsWith": (text.ends_with, 2, 2),
    "equals": (_equals, 2, 2),
    "false": (_be(False), 0, 0),  # noqa: FBT003 - it is the value
    "first": (values.take_first, 1, 1),
    "flatten": (values.flatten, 1, 1),
    "format": (text.format_text, 1, MANY),
    "greater": (values.compare(operator.gt), 2, 2),
    "greaterOrEquals": (values.compare(operator.ge), 2, 2),
    "guid": (text.make_guid, 1, MANY),
    "indexOf": (text.find_text, 2, 2),
    "int": (values.to_int, 1, 1),
    "intersection": (values.intersect, 2, MANY),
    "items": (values.list_items, 1, 1),
    "join": (text.join_texts, 2, 2),
    "json": (text.parse_json, 1, 1),
    "last": (values.take_last, 1, 1),
    "lastIndexOf": (text.find_last_text, 2, 2),
    "length": (values.count, 1, 1),
    "less": (values.compare(operator.lt), 2, 2),
    "lessOrEquals": (values.compare(operator.le), 2, 2),
    "max": (values.choose(max), 1, MANY),
    "min": (values.choose(min), 1, MANY),
    "mod": (values.calculate(values.remain), 2, 2),
    "mul": (values.calculate(operator.mul), 2, 2),
    "not": (lambda given, budget: not values.take_bool(given[0]), 1, 1),
    "null": (_be(None), 0, 0),
    "objectKeys": (_list_keys, 1, 1),
    "padLeft": (text.pad_left, 2, 3),
    "range": (values.make_range, 2, 2),
    "replace": (text.replace_text, 3, 3),
    "shallowMerge": (values.shallow_merge, 1, 1),
    "skip": (values.skip, 2, 2),
    "split": (text.split_text, 2, 2),
    "startsWith": (text.starts_with, 2, 2),
    "string": (lambda given, budget: text.to_text(given[0]), 1, 1),
    "sub": (values.calculate(operator.sub), 2, 2),
    "substring": (text.cut_text, 2, 3),
    "take": (values.take, 2, 2),
    "toLower": (_of_text(str.lower), 1, 1),
    "toUpper": (_of_text(str.upper), 1, 1),
    "trim": (_of_text(str.strip), 1, 1),
    "true": (_be(True), 0, 0),  # noqa: FBT003 - it is the value
    "tryGet": (values.try_get, 2, MANY),
    "union": (values.unite, 1, MANY),
    "uniqueString": (text.make_unique_text, 1, MANY),
    "uri": (text.join_uri, 2, 2),
    "uriComponent": (text.encode_uri, 1, 1),
    "uriComponentToString": (text.decode_uri, 1, 1),
}

FUNCTIONS = {
    name.lower(): Function(call=call, least=least, most=most)
    for name, (call, least, most) in _ALL.items()
}
