"""Functions of templates on numbers, arrays, objects and conditions."""

# ruff: noqa: ARG001 - every function is given the budget, and few ask for room in it
import json
from collections.abc import Callable, Sequence

from labctl.arm.template_fault import Budget, Fault, Json
from labctl.arm.template_parse import INT_MAX, INT_MIN

MAX_RANGE = 10_000  # elements of range(); Azure's bound
_NAMES = {str: "a text", int: "a number", bool: "a boolean", list: "an array", dict: "an object"}


def tell_type(value: Json) -> str:
    """What kind of value this is, never which."""
    return _NAMES.get(type(value), "null" if value is None else "a fraction")


def dump(value: Json) -> str:
    """The value as compact JSON, in its own order."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def take_text(value: Json) -> str:
    """The text, or a Fault."""
    if not isinstance(value, str):
        raise Fault(f"a text is needed where there is {tell_type(value)}")
    return value


def take_texts(values: Sequence[Json]) -> list[str]:
    """All of them must be texts."""
    return [take_text(value) for value in values]


def take_int(value: Json) -> int:
    """The number, or a Fault."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise Fault(f"an integer is needed where there is {tell_type(value)}")
    return keep_int(value)


def take_bool(value: Json) -> bool:
    """The boolean, or a Fault."""
    if not isinstance(value, bool):
        raise Fault(f"a boolean is needed where there is {tell_type(value)}")
    return value


def take_list(value: Json) -> list[Json]:
    """The array, or a Fault."""
    if not isinstance(value, list):
        raise Fault(f"an array is needed where there is {tell_type(value)}")
    return value


def take_object(value: Json) -> dict[str, Json]:
    """The object, or a Fault."""
    if not isinstance(value, dict):
        raise Fault(f"an object is needed where there is {tell_type(value)}")
    return value


def keep_int(value: int) -> int:
    """A number that fits into 64 bits, or a Fault."""
    if not INT_MIN <= value <= INT_MAX:
        raise Fault("the result does not fit into 64 bits")
    return value


def are_same(one: Json, other: Json) -> bool:
    """Deeply equal; true and 1 are not."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def calculate(work: Callable[[int, int], int]) -> Callable[[Sequence[Json], Budget], Json]:
    """`add` and its like."""

    def function(given: Sequence[Json], budget: Budget) -> Json:
        one, other = (take_int(each) for each in given)
        try:
            return keep_int(work(one, other))
        except ZeroDivisionError as error:
            raise Fault("a number is divided by 0") from error

    return function


def divide(one: int, other: int) -> int:
    """Towards 0, as in Azure."""
    found = abs(one) // abs(other)
    return found if (one < 0) == (other < 0) else -found


def remain(one: int, other: int) -> int:
    """What `divide` leaves."""
    return one - other * divide(one, other)


def compare(test: Callable[[Json, Json], bool]) -> Callable[[Sequence[Json], Budget], Json]:
    """`less` and its like: two numbers or two texts."""

    def function(given: Sequence[Json], budget: Budget) -> Json:
        one, other = given
        if isinstance(one, str) and isinstance(other, str):
            return test(one, other)
        return test(take_int(one), take_int(other))

    return function


def choose(pick: Callable[[Sequence[int]], int]) -> Callable[[Sequence[Json], Budget], Json]:
    """`min` and `max` of numbers or of an array of numbers."""

    def function(given: Sequence[Json], budget: Budget) -> Json:
        values = given[0] if len(given) == 1 and isinstance(given[0], list) else given
        numbers = [take_int(each) for each in values]
        if not numbers:
            raise Fault("there is no number to choose from")
        return pick(numbers)

    return function


def to_int(given: Sequence[Json], budget: Budget) -> Json:
    """`int`."""
    if isinstance(given[0], str):
        text = given[0].strip()
        if len(text) > 20 or not text.isascii() or not text.removeprefix("-").isdigit():
            raise Fault("the text is no integer")
        return keep_int(int(text))
    return take_int(given[0])


def to_bool(given: Sequence[Json], budget: Budget) -> Json:
    """`bool`."""
    value = given[0]
    if isinstance(value, str) and value.lower() in {"true", "false", "1", "0"}:
        return value.lower() in {"true", "1"}
    if isinstance(value, int):
        return bool(value)
    raise Fault(f"{tell_type(value)} is neither true nor false")


def count(given: Sequence[Json], budget: Budget) -> Json:
    """`length`."""
    if isinstance(given[0], str | list | dict):
        return len(given[0])
    raise Fault(f"{tell_type(given[0])} has no length")


def is_empty(given: Sequence[Json], budget: Budget) -> Json:
    """`empty`."""
    if given[0] is None:
        return True
    return not count(given, budget)


def contains(given: Sequence[Json], budget: Budget) -> Json:
    """`contains`: a part of a text, an element of an array, a key of an object."""
    whole, part = given
    if isinstance(whole, str):
        return take_text(part) in whole
    if isinstance(whole, dict):
        return find_key(whole, take_text(part)) is not None
    wanted = json.dumps(part, sort_keys=True)
    return any(json.dumps(each, sort_keys=True) == wanted for each in take_list(whole))


def find_key(whole: dict[str, Json], name: str) -> str | None:
    """The key as the object spells it: names of properties count in any case."""
    if name in whole:
        return name
    return next((key for key in whole if key.lower() == name.lower()), None)


def take_first(given: Sequence[Json], budget: Budget) -> Json:
    """`first`; null of an empty array."""
    value = given[0]
    if isinstance(value, str):
        return value[:1]
    return next(iter(take_list(value)), None)


def take_last(given: Sequence[Json], budget: Budget) -> Json:
    """`last`; null of an empty array."""
    value = given[0]
    if isinstance(value, str):
        return value[-1:]
    return take_list(value)[-1] if value else None


def skip(given: Sequence[Json], budget: Budget) -> Json:
    """`skip`."""
    number = max(take_int(given[1]), 0)
    return given[0][number:] if isinstance(given[0], str) else take_list(given[0])[number:]


def take(given: Sequence[Json], budget: Budget) -> Json:
    """`take`."""
    number = max(take_int(given[1]), 0)
    return given[0][:number] if isinstance(given[0], str) else take_list(given[0])[:number]


def unite(given: Sequence[Json], budget: Budget) -> Json:
    """`union` of arrays, or of objects, of which the last counts."""
    if all(isinstance(each, dict) for each in given):
        found: dict[str, Json] = {}
        for each in given:
            found = _merge(found, each)
        return found
    every = [item for each in given for item in take_list(each)]
    return list({json.dumps(item, sort_keys=True): item for item in every}.values())


def _merge(under: dict[str, Json], over: dict[str, Json]) -> dict[str, Json]:
    merged = dict(under)
    for key, value in over.items():
        before = merged.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            merged[key] = _merge(before, value)
        else:
            merged[key] = value
    return merged


def intersect(given: Sequence[Json], budget: Budget) -> Json:
    """`intersection` of arrays or objects."""
    if all(isinstance(each, dict) for each in given):
        first, *rest = given
        return {
            key: value
            for key, value in first.items()
            if all(key in each and are_same(each[key], value) for each in rest)
        }
    first, *rest = (take_list(each) for each in given)
    texts = [{json.dumps(item, sort_keys=True) for item in each} for each in rest]
    unique = {json.dumps(item, sort_keys=True): item for item in first}
    return [item for text, item in unique.items() if all(text in each for each in texts)]


def make_range(given: Sequence[Json], budget: Budget) -> Json:
    """`range`: how many numbers from the first on."""
    begin, number = take_int(given[0]), take_int(given[1])
    if not 0 <= number <= MAX_RANGE:
        raise Fault(f"range gives 0 to {MAX_RANGE} numbers, not {number}")
    keep_int(begin + number)
    return list(range(begin, begin + number))


def make_array(given: Sequence[Json], budget: Budget) -> Json:
    """`array`."""
    return given[0] if isinstance(given[0], list) else [given[0]]


def make_object(given: Sequence[Json], budget: Budget) -> Json:
    """`createObject`."""
    if len(given) % 2:
        raise Fault("createObject takes keys and values in turn; the last key has no value")
    return {take_text(key): value for key, value in zip(given[::2], given[1::2], strict=True)}


def list_items(given: Sequence[Json], budget: Budget) -> Json:
    """`items`: the object as pairs, by key."""
    pairs = sorted(take_object(given[0]).items())
    return [{"key": key, "value": value} for key, value in pairs]


def flatten(given: Sequence[Json], budget: Budget) -> Json:
    """`flatten`: arrays in an array become one."""
    return [item for each in take_list(given[0]) for item in take_list(each)]


def shallow_merge(given: Sequence[Json], budget: Budget) -> Json:
    """`shallowMerge`."""
    found: dict[str, Json] = {}
    for each in take_list(given[0]):
        found |= take_object(each)
    return found


def try_get(given: Sequence[Json], budget: Budget) -> Json:
    """`tryGet`: null where there is nothing."""
    found = given[0]
    for key in given[1:]:
        if isinstance(found, dict) and isinstance(key, str):
            name = find_key(found, key)
            found = None if name is None else found[name]
        elif isinstance(found, list) and isinstance(key, int) and not isinstance(key, bool):
            found = found[key] if 0 <= key < len(found) else None
        else:
            return None
    return found


def find_member(whole: Json, key: Json) -> Json:
    """What `.key` or `[key]` means. Raises Fault with the names that there are."""
    if isinstance(whole, dict):
        name = find_key(whole, take_text(key))
        if name is None:
            known = ", ".join(list(whole)[:30])
            raise Fault(f"there is no property '{take_text(key)[:100]}', but: {known or 'none'}")
        return whole[name]
    if isinstance(whole, list):
        place = take_int(key)
        if not 0 <= place < len(whole):
            raise Fault(f"the index {place} is not within an array of {len(whole)}")
        return whole[place]
    raise Fault(f"{tell_type(whole)} has no property or element")
