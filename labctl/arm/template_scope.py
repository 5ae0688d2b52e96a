"""Works out expressions where a template's parameters, variables and resources are known."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID, uuid5

from labctl.arm.errors import ArmError
from labctl.arm.template_dates import format_moment
from labctl.arm.template_fault import (
    MAX_DEPTH,
    Budget,
    Fault,
    Json,
    invalid_template,
)
from labctl.arm.template_functions import FUNCTIONS, check_count
from labctl.arm.template_ids import (
    make_extension_id,
    make_group_id,
    make_subscription_id,
    make_tenant_id,
)
from labctl.arm.template_parse import (
    Invocation,
    Literal,
    Member,
    Node,
    is_expression,
    parse_expression,
    unescape,
)
from labctl.arm.template_values import find_key, find_member, take_bool, take_int, take_text

MAX_COPIES = 800  # Azure's bound
API_VERSION = "2024-11-01"  # what providers() names; any well-formed one will do
_SECRETS = "listKeys and its like ask for secrets, which this lab gives to no template"

# (id or name of a resource, is the whole resource asked for?) -> what it is now
Look = Callable[[str, bool], Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where and when a template is deployed."""

    subscription_id: str
    tenant_id: str
    group: str
    location: str  # of the group
    tags: Mapping[str, str] = field(default_factory=dict)  # of the group
    name: str  # of the deployment
    url: str  # under which the client knows the lab
    now: datetime  # when the deployment was asked for
    seed: str  # a UUID, that of the deployment: newGuid() is made from it


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """Where a copy loop stands."""

    name: str
    index: int
    is_of_resource: bool = False  # else of a property, a variable or an output


@dataclass(slots=True)
class Evaluator:
    """The values of expressions of one deployment."""

    setting: Setting
    budget: Budget = field(default_factory=Budget)
    parameters: dict[str, Json] = field(default_factory=dict)
    defaults: dict[str, Json] = field(default_factory=dict)  # of parameters that are not given
    variables: dict[str, Json] = field(default_factory=dict)  # as the template has them
    look: Look | None = None  # None: reference() has no place here
    has_clock: bool = False  # utcNow() and newGuid(): in default values only
    _known: dict[str, Json] = field(default_factory=dict)  # variables, once worked out
    _open: list[str] = field(default_factory=list)  # values that are being worked out
    _depth: int = 0
    _guids: int = 0

    def evaluate(self, value: Json, path: str, loops: tuple[Loop, ...] = ()) -> Json:
        """A value of the template with every expression in it worked out.

        Raises ArmError (InvalidTemplate) with the path and the expression that has no value.
        """
        self._depth += 1
        try:
            if self._depth > 2 * MAX_DEPTH:
                raise invalid_template(f"more than {2 * MAX_DEPTH} levels deep", path=path)
            # Loops in loops make much of little without a single expression.
            self.budget.spend_literal(value)
            return self._evaluate(value, path, loops)
        except Fault as fault:
            raise invalid_template(str(fault), path=path[:200]) from fault
        except RecursionError as error:
            raise invalid_template("nested too deeply", path=path[:200]) from error
        finally:
            self._depth -= 1

    def compute(self, text: str, path: str, loops: tuple[Loop, ...] = ()) -> Json:
        """The value of one text, which may be an expression."""
        if not is_expression(text):
            return unescape(text)
        try:
            return self.work_out(parse_expression(text), path, loops)
        except Fault as fault:
            raise invalid_template(str(fault), path=path, expression=text) from fault
        except RecursionError as error:
            raise invalid_template("nested too deeply", path=path, expression=text) from error

    def _evaluate(self, value: Json, path: str, loops: tuple[Loop, ...]) -> Json:
        if isinstance(value, str):
            return self.compute(value, path, loops)
        if isinstance(value, list):
            return [
                self.evaluate(each, f"{path}[{place}]", loops) for place, each in enumerate(value)
            ]
        if not isinstance(value, dict):
            return value
        found: dict[str, Json] = {}
        for key, each in value.items():
            if key.lower() == "copy" and _is_copy(each):
                found |= self._repeat(each, f"{path}.{key}", loops)
            else:
                name = self.compute(key, path, loops)
                if not isinstance(name, str):
                    raise invalid_template("the name of a property must be a text", path=path)
                found[name] = self.evaluate(each, f"{path}.{key}", loops)
        return found

    def _repeat(self, copies: list[Json], path: str, loops: tuple[Loop, ...]) -> dict[str, Json]:
        found: dict[str, Json] = {}
        for place, copy in enumerate(copies):
            here = f"{path}[{place}]"
            name = self.evaluate(copy["name"], f"{here}.name", loops)
            if not isinstance(name, str):
                raise invalid_template("the name of a copy loop must be a text", path=here)
            number = self.count_copies(copy.get("count"), f"{here}.count", loops)
            found[name] = [
                self.evaluate(copy["input"], f"{here}.input", (*loops, Loop(name=name, index=i)))
                for i in range(number)
            ]
        return found

    def count_copies(self, value: Json, path: str, loops: tuple[Loop, ...] = ()) -> int:
        """How often a copy loop goes round."""
        number = self.evaluate(value, path, loops)
        if isinstance(number, bool) or not isinstance(number, int):
            raise invalid_template("the count of a copy loop must be an integer", path=path)
        if not 0 <= number <= MAX_COPIES:
            raise invalid_template(
                f"a copy loop goes round 0 to {MAX_COPIES} times, not {number}", path=path
            )
        return number

    def work_out(self, node: Node, path: str, loops: tuple[Loop, ...]) -> Json:
        """The value of a part of an expression. Raises Fault."""
        self.budget.spend_node()
        match node:
            case Literal(value=value):
                return value
            case Member(of=of, key=key):
                whole = self.work_out(of, path, loops)
                return find_member(whole, self.work_out(key, path, loops))
            case Invocation():
                value = self._invoke(node, path, loops)
                self.budget.spend_value(value)
                return value

    def _invoke(self, node: Invocation, path: str, loops: tuple[Loop, ...]) -> Json:
        name, nodes = node.name.lower(), node.arguments
        if name == "if":
            check_count("if", len(nodes), 3, 3)
            condition = take_bool(self.work_out(nodes[0], path, loops))
            return self.work_out(nodes[1 if condition else 2], path, loops)
        if name in {"and", "or"}:
            check_count(name, len(nodes), 2, 10_000)
            decides = name == "or"  # the first one of this value decides; the rest is not asked
            for each in nodes:
                if take_bool(self.work_out(each, path, loops)) is decides:
                    return decides
            return not decides
        given = [self.work_out(each, path, loops) for each in nodes]
        function = FUNCTIONS.get(name)
        if function is not None:
            check_count(node.name, len(given), function.least, function.most)
            return function.call(given, self.budget)
        return self._ask(node.name, given, loops)

    def _ask(self, name: str, given: Sequence[Json], loops: tuple[Loop, ...]) -> Json:
        setting = self.setting
        match name.lower():
            case "parameters":
                return self._find_parameter(name, given)
            case "variables":
                return self._find_variable(name, given)
            case "copyindex":
                return _find_index(given, loops)
            case "resourceid":
                return make_group_id(setting.subscription_id, setting.group, given)
            case "subscriptionresourceid":
                return make_subscription_id(setting.subscription_id, given)
            case "tenantresourceid":
                return make_tenant_id(given)
            case "extensionresourceid":
                return make_extension_id(given)
            case "reference":
                return self._refer(given)
            case "resourcegroup":
                check_count(name, len(given), 0, 0)
                return describe_group(setting)
            case "subscription":
                check_count(name, len(given), 0, 0)
                return describe_subscription(setting)
            case "tenant":
                check_count(name, len(given), 0, 0)
                return {"tenantId": setting.tenant_id, "displayName": "labctl"}
            case "deployment":
                check_count(name, len(given), 0, 0)
                properties = {"mode": "Incremental", "provisioningState": "Running"}
                return {"name": setting.name, "properties": properties}
            case "environment":
                check_count(name, len(given), 0, 0)
                return describe_environment(setting)
            case "providers":
                check_count(name, len(given), 2, 2)
                return {
                    "resourceType": take_text(given[1]),
                    "locations": [setting.location],
                    "apiVersions": [API_VERSION],
                }
            case "utcnow" | "newguid":
                return self._make_new(name, given)
            case lower if lower.startswith("list"):
                raise Fault(_SECRETS)
            case _:
                raise Fault(f"this lab knows no function {name[:60]}")

    def _find_parameter(self, name: str, given: Sequence[Json]) -> Json:
        check_count(name, len(given), 1, 1)
        wanted = take_text(given[0])
        key = find_key(self.parameters, wanted)
        if key is not None:
            return self.parameters[key]
        key = find_key(self.defaults, wanted)
        if key is None:
            raise Fault(f"the template has no parameter '{wanted[:100]}'")
        return self.take_default(key)

    def take_default(self, key: str) -> Json:
        """The default value of a parameter, which may ask for other parameters."""
        if key not in self.parameters:
            with self._opened("parameters", key):
                path = f"parameters.{key}.defaultValue"
                self.parameters[key] = self.evaluate(self.defaults[key], path)
        return self.parameters[key]

    def _find_variable(self, name: str, given: Sequence[Json]) -> Json:
        check_count(name, len(given), 1, 1)
        wanted = take_text(given[0])
        key = find_key(self.variables, wanted)
        if key is None:
            raise Fault(f"the template has no variable '{wanted[:100]}'")
        if key in self._known:
            return self._known[key]
        look, self.look = self.look, None  # variables are the same before and after resources
        try:
            with self._opened("variables", key):
                self._known[key] = self.evaluate(self.variables[key], f"variables.{key}")
        finally:
            self.look = look
        return self._known[key]

    @contextmanager
    def _opened(self, kind: str, key: str) -> Iterator[None]:
        name = f"{kind}.{key}"
        if name in self._open:
            circle = " -> ".join((*self._open[self._open.index(name) :], name))
            raise Fault(f"values need each other: {circle[:200]}")
        self._open.append(name)
        try:
            yield
        finally:
            self._open.pop()

    def _refer(self, given: Sequence[Json]) -> Json:
        check_count("reference", len(given), 1, 3)
        wanted = take_text(given[0])
        if self.look is None:
            raise Fault("reference() belongs into properties of resources and into outputs")
        is_whole = len(given) > 2 and take_text(given[2]).lower() == "full"
        try:
            return self.look(wanted, is_whole)
        except ArmError as error:
            raise Fault(f"'{wanted[:300]}' cannot be read: {error.message}") from error

    def _make_new(self, name: str, given: Sequence[Json]) -> Json:
        if not self.has_clock:
            raise Fault(f"{name} belongs into default values of parameters")
        if name.lower() == "newguid":
            check_count(name, len(given), 0, 0)
            self._guids += 1
            return str(uuid5(UUID(self.setting.seed), str(self._guids)))
        check_count(name, len(given), 0, 1)
        return format_moment(self.setting.now, take_text(given[0]) if given else "")


def describe_group(setting: Setting) -> dict[str, Json]:
    """`resourceGroup()`."""
    return {
        "id": f"/subscriptions/{setting.subscription_id}/resourceGroups/{setting.group}",
        "name": setting.group,
        "type": "Microsoft.Resources/resourceGroups",
        "location": setting.location,
        "tags": dict(setting.tags),
        "properties": {"provisioningState": "Succeeded"},
    }


def describe_subscription(setting: Setting) -> dict[str, Json]:
    """`subscription()`."""
    return {
        "id": f"/subscriptions/{setting.subscription_id}",
        "subscriptionId": setting.subscription_id,
        "tenantId": setting.tenant_id,
        "displayName": "labctl",
    }


def describe_environment(setting: Setting) -> dict[str, Json]:
    """`environment()`. A lab has none of the services whose names end so."""
    return {
        "name": "Lab",
        "resourceManager": setting.url,
        "authentication": {
            "loginEndpoint": setting.url,
            "audiences": [setting.url],
            "tenant": "common",
            "identityProvider": "AAD",
        },
        "suffixes": {
            "storage": "storage.lab.invalid",
            "keyvaultDns": ".vault.lab.invalid",
            "sqlServerHostname": ".database.lab.invalid",
            "acrLoginServer": ".registry.lab.invalid",
        },
    }


def _find_index(given: Sequence[Json], loops: tuple[Loop, ...]) -> int:
    check_count("copyIndex", len(given), 0, 2)
    if not loops:
        raise Fault("copyIndex belongs into a copy loop")
    name = given[0] if given and isinstance(given[0], str) else None
    rest = given[1:] if name is not None else given
    check_count("copyIndex", len(rest), 0, 1)
    offset = take_int(rest[0]) if rest else 0
    if name is None:
        # Without a name the resource's loop is meant, even in the loop of a property.
        outer = [loop for loop in loops if loop.is_of_resource]
        return (outer or loops)[-1].index + offset
    found = [loop for loop in loops if loop.name.lower() == name.lower()]
    if not found:
        raise Fault(f"there is no copy loop '{name[:100]}' around this")
    return found[-1].index + offset


def _is_copy(value: Json) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, dict) and {"name", "input"} <= each.keys() for each in value)
    )
