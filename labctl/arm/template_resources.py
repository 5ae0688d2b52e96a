"""The resources of a template one by one: loops gone round, children beside their parents."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from labctl.arm.errors import not_supported
from labctl.arm.template_fault import Fault, Json, invalid_template
from labctl.arm.template_ids import interleave
from labctl.arm.template_parse import is_expression
from labctl.arm.template_scope import MAX_COPIES, Evaluator, Loop
from labctl.arm.template_values import find_key

_TYPE = re.compile(r"[A-Za-z0-9]+(\.[A-Za-z0-9]+)*(/[A-Za-z0-9]+)+")
_NAME = re.compile(r"[^/\\?#%&<>\x00-\x1f\x7f]{1,260}")
_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(-[A-Za-z][A-Za-z0-9.-]{0,30})?")
_DEPLOYMENT = "microsoft.resources/deployments"
MAX_CHILDREN_DEPTH = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedResource:
    """One resource that a template asks for."""

    id: str
    type: str
    name: str  # "vnet/subnet" for a part of another
    api_version: str
    is_wanted: bool  # its condition
    source: Mapping[str, Json]  # as in the template
    path: str  # in the template: resources[2]
    loops: tuple[Loop, ...]
    depends_on: tuple[str, ...]  # as the template names them
    symbol: str = ""  # its name in a template with symbolic names
    needs: frozenset[str] = frozenset()  # keys of what must be there before

    @property
    def key(self) -> str:
        """Equal for ids that mean the same."""
        return self.id.lower()

    @property
    def is_deployment(self) -> bool:
        """A template in a template?"""
        return self.type.lower() == _DEPLOYMENT

    @property
    def spellings(self) -> frozenset[str]:
        """What dependsOn and reference() may call it, in lower case."""
        short = self.id.lower().partition("/providers/")[2]
        loop = {self.loops[-1].name.lower()} if self.loops else set()
        typed = f"{self.type}/{self.name}".lower()
        symbol = {self.symbol.lower()} if self.symbol else set()
        return frozenset({self.key, short, typed, self.name.lower()} | loop | symbol)

    def with_needs(self, needs: frozenset[str]) -> "PlannedResource":
        """The same, when it is known what it needs."""
        return replace(self, needs=needs)


def expand(source: list[Json] | dict[str, Json], evaluator: Evaluator) -> Iterator[PlannedResource]:
    """Each resource, in the template's order. Raises ArmError with the place of what is wrong."""
    yield from _expand_all(source, "resources", evaluator, None)


def _expand_all(
    source: list[Json] | dict[str, Json],
    path: str,
    evaluator: Evaluator,
    parent: PlannedResource | None,
) -> Iterator[PlannedResource]:
    if path.count("resources") > MAX_CHILDREN_DEPTH:
        raise invalid_template("resources are nested too deeply", path=path)
    if isinstance(source, dict):
        for symbol, each in source.items():
            yield from _expand_one(each, f"{path}.{symbol}", evaluator, parent, symbol)
        return
    for place, each in enumerate(source):
        yield from _expand_one(each, f"{path}[{place}]", evaluator, parent, "")


def _expand_one(
    source: Json, path: str, evaluator: Evaluator, parent: PlannedResource | None, symbol: str
) -> Iterator[PlannedResource]:
    if not isinstance(source, dict):
        raise invalid_template("a resource is an object", path=path)
    copy = _pick(source, "copy")
    outer = parent.loops if parent is not None else ()
    if copy is None:
        yield from _make(source, path, evaluator, parent, outer, symbol)
        return
    if not isinstance(copy, dict) or not isinstance(_pick(copy, "name"), str):
        raise invalid_template("a copy loop needs a name", path=f"{path}.copy")
    if parent is not None:
        raise invalid_template("a child in its parent has no copy loop", path=f"{path}.copy")
    number = evaluator.count_copies(_pick(copy, "count"), f"{path}.copy.count")
    mode = str(_pick(copy, "mode") or "parallel").lower()
    batch = _pick(copy, "batchSize")
    size = batch if isinstance(batch, int) and not isinstance(batch, bool) else 1
    if mode not in {"serial", "parallel"} or not 1 <= size <= MAX_COPIES:
        raise invalid_template("mode is serial (with a batchSize) or parallel", path=f"{path}.copy")
    before: list[list[str]] = []
    for index in range(number):
        loops = (*outer, Loop(name=_pick(copy, "name"), index=index, is_of_resource=True))
        if index % size == 0:
            before.append([])
        for made in _make(source, path, evaluator, parent, loops, symbol):
            before[-1].append(made.key)
            waits = mode == "serial" and len(before) > 1
            yield made.with_needs(made.needs | frozenset(before[-2])) if waits else made


def _make(
    source: dict[str, Json],
    path: str,
    evaluator: Evaluator,
    parent: PlannedResource | None,
    loops: tuple[Loop, ...],
    symbol: str,
) -> Iterator[PlannedResource]:
    if _pick(source, "scope") is not None:
        raise not_supported(
            f"'{path}' is deployed to another scope; a lab deploys into a resource group.",
            target=f"{path}.scope",
        )
    if _pick(source, "existing") is True:
        raise not_supported(
            f"'{path}' is a symbol for a resource that exists; use reference() with its id.",
            target=path,
        )
    kind = _read_text(source, "type", path, evaluator, loops)
    name = _read_text(source, "name", path, evaluator, loops)
    if parent is not None:
        is_whole = kind.lower().startswith(f"{parent.type.lower()}/")
        kind = kind if is_whole else f"{parent.type}/{kind}"
        name = name if "/" in name else f"{parent.name}/{name}"
    if not _TYPE.fullmatch(kind):
        raise invalid_template(
            f"'{kind[:200]}' is no type such as Microsoft.Network/loadBalancers", path=path
        )
    names = name.split("/")
    if not all(_NAME.fullmatch(each) and set(each) != {"."} for each in names):
        raise invalid_template(
            f"'{name[:200]}' is no name: 1 to 260 characters without /\\?#%&<>", path=f"{path}.name"
        )
    version = _read_text(source, "apiVersion", path, evaluator, loops)
    if not _VERSION.fullmatch(version):
        raise invalid_template(
            f"'{version[:60]}' is not like 2024-11-01 or 2024-11-01-preview",
            path=f"{path}.apiVersion",
        )
    try:
        tail = interleave(kind, names)
    except Fault as fault:
        raise invalid_template(str(fault), path=f"{path}.name") from fault
    made = PlannedResource(
        id=f"{_find_group(source, path, evaluator, loops)}{tail}",
        type=kind,
        name=name,
        api_version=version,
        is_wanted=_read_condition(source, path, evaluator, loops, parent),
        source=source,
        path=path,
        loops=loops,
        depends_on=_read_dependencies(source, path, evaluator, loops),
        symbol=symbol,
        needs=frozenset() if parent is None else frozenset({parent.key}),
    )
    if made.is_deployment:
        _check_nested(made)
    yield made
    children = _pick(source, "resources")
    if children is None:
        return
    if not isinstance(children, list | dict):
        raise invalid_template("children are a list of resources", path=f"{path}.resources")
    yield from _expand_all(children, f"{path}.resources", evaluator, made)


def _find_group(
    source: dict[str, Json], path: str, evaluator: Evaluator, loops: tuple[Loop, ...]
) -> str:
    setting = evaluator.setting
    group = setting.group
    if _pick(source, "resourceGroup") is not None:
        group = _read_text(source, "resourceGroup", path, evaluator, loops)
        if not _NAME.fullmatch(group):
            raise invalid_template("this is no name of a group", path=f"{path}.resourceGroup")
    if _pick(source, "subscriptionId") is not None:
        asked = _read_text(source, "subscriptionId", path, evaluator, loops)
        if asked.lower() != setting.subscription_id.lower():
            raise not_supported(
                f"'{path}' is deployed to another subscription; the lab is one subscription.",
                target=f"{path}.subscriptionId",
            )
    return f"/subscriptions/{setting.subscription_id}/resourceGroups/{group}"


def _read_condition(
    source: dict[str, Json],
    path: str,
    evaluator: Evaluator,
    loops: tuple[Loop, ...],
    parent: PlannedResource | None,
) -> bool:
    if parent is not None and not parent.is_wanted:
        return False
    condition = _pick(source, "condition")
    if condition is None:
        return True
    wanted = evaluator.evaluate(condition, f"{path}.condition", loops)
    if not isinstance(wanted, bool):
        raise invalid_template("a condition is true or false", path=f"{path}.condition")
    return wanted


def _read_dependencies(
    source: dict[str, Json], path: str, evaluator: Evaluator, loops: tuple[Loop, ...]
) -> tuple[str, ...]:
    where = f"{path}.dependsOn"
    found = evaluator.evaluate(_pick(source, "dependsOn") or [], where, loops)
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise invalid_template("names or ids of resources are needed here", path=where)
    return tuple(found)


def _read_text(
    source: dict[str, Json], key: str, path: str, evaluator: Evaluator, loops: tuple[Loop, ...]
) -> str:
    found = evaluator.evaluate(_pick(source, key), f"{path}.{key}", loops)
    if not isinstance(found, str) or not found:
        raise invalid_template(f"a resource needs the text '{key}'", path=f"{path}.{key}")
    return found


def _check_nested(resource: PlannedResource) -> None:
    """Templates in templates: their expressions are worked out inside them, or there are none."""
    properties = _pick(dict(resource.source), "properties")
    options = _pick(properties, "expressionEvaluationOptions") if properties else None
    scope = _pick(options, "scope") if isinstance(options, dict) else None
    if isinstance(scope, str) and scope.lower() == "inner":
        return
    nested = _pick(properties, "template") if isinstance(properties, dict) else None
    if _has_expression(nested):
        raise not_supported(
            "Expressions in a template in a template are worked out inside it only: set "
            "properties.expressionEvaluationOptions.scope to 'inner' and hand over parameters.",
            target=f"{resource.path}.properties.expressionEvaluationOptions.scope",
        )


def _has_expression(value: Json) -> bool:
    stack = [value]
    while stack:
        found = stack.pop()
        if isinstance(found, str) and is_expression(found):
            return True
        if isinstance(found, dict):
            stack.extend(found.values())
        elif isinstance(found, list):
            stack.extend(found)
    return False


def _pick(document: Json, name: str) -> Json:
    if not isinstance(document, dict):
        return None
    key = find_key(document, name)
    return None if key is None else document[key]
