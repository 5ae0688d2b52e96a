"""A template that is deployed: its resources in order, their bodies, its outputs."""

from collections.abc import Callable, Iterator, Mapping

from labctl.arm.errors import ArmError, not_supported
from labctl.arm.template_fault import MAX_DEPTH, Fault, Json, invalid_template
from labctl.arm.template_parameters import is_of_type, is_secure, resolve_parameters
from labctl.arm.template_parse import Invocation, escape, is_expression, parse_expression, walk
from labctl.arm.template_resources import PlannedResource, expand
from labctl.arm.template_scope import Evaluator, Setting
from labctl.arm.template_values import find_key

MAX_RESOURCES = 800  # Azure's bound
_MAX_VARIABLES = 256  # Azure's bound
_NOT_SENT = frozenset(
    {
        "type",
        "name",
        "apiversion",
        "dependson",
        "copy",
        "condition",
        "comments",
        "metadata",
        "resources",
        "scope",
        "resourcegroup",
        "subscriptionid",
        "existing",
    }
)

# The resource with this id as it is now. Raises ArmError when there is none.
FindNow = Callable[[str], dict[str, Json]]


class Template:
    """A template with its parameters, in its setting. Raises ArmError for what it cannot mean."""

    def __init__(
        self, document: Mapping[str, Json], given: Mapping[str, Json], setting: Setting
    ) -> None:
        """Read `document`; `given` are parameters as a deployment has them: {name: {value}}."""
        check_depth(document)
        self._document = dict(document)
        self._setting = setting
        self._check_kind()
        self._evaluator = Evaluator(setting=setting)
        variables = self._section("variables")
        if len(variables) > _MAX_VARIABLES:
            raise invalid_template(f"there are more than {_MAX_VARIABLES} variables")
        self._declared = self._section("parameters")
        self.parameters = resolve_parameters(self._declared, given, self._evaluator)
        self._evaluator.variables = self._read_variables(variables)
        self.resources: tuple[PlannedResource, ...] = ()
        self._names: dict[str, list[PlannedResource]] = {}
        self._plan()

    @property
    def open_parameters(self) -> dict[str, Json]:
        """The parameters as a deployment shows them: without secrets."""
        found: dict[str, Json] = {}
        for name, value in self.parameters.items():
            declared = self._declared[name]
            shown = {} if is_secure(declared) else {"value": value}
            found[name] = {"type": _pick(declared, "type"), **shown}
        return found

    def make_body(self, resource: PlannedResource, find: FindNow) -> dict[str, Json]:
        """What is to be PUT for a resource, with what it refers to as it is now."""
        self._evaluator.look = self._make_look(find)
        try:
            return {
                key: self._evaluate_part(resource, key, value)
                for key, value in resource.source.items()
                if key.lower() not in _NOT_SENT
            }
        finally:
            self._evaluator.look = None

    def make_outputs(self, find: FindNow) -> dict[str, Json]:
        """The outputs, without secrets."""
        self._evaluator.look = self._make_look(find)
        try:
            found = {
                name: self._make_output(f"outputs.{name}", declared)
                for name, declared in self._section("outputs").items()
            }
        finally:
            self._evaluator.look = None
        return {name: value for name, value in found.items() if value is not None}

    def find_named(self, text: str) -> list[PlannedResource]:
        """The resources that a name, an id or a copy loop's name means."""
        return self._names.get(text.lower(), [])

    def _check_kind(self) -> None:
        schema = _pick(self._document, "$schema")
        if isinstance(schema, str) and not schema.lower().rstrip("#").endswith(
            "/deploymenttemplate.json"
        ):
            raise not_supported(
                f"A lab deploys into resource groups; '{schema[:200]}' is another kind.",
                target="$schema",
            )
        if _pick(self._document, "functions") not in (None, [], {}):
            raise not_supported("The lab knows no functions of the user's own.", target="functions")

    def _section(self, name: str) -> dict[str, Json]:
        found = _pick(self._document, name)
        if found is None:
            return {}
        if not isinstance(found, dict):
            raise invalid_template("an object is needed here", path=name)
        return found

    def _read_variables(self, variables: dict[str, Json]) -> dict[str, Json]:
        key = find_key(variables, "copy")
        if key is None or not isinstance(variables[key], list):
            return variables
        found = {name: value for name, value in variables.items() if name != key}
        for place, copy in enumerate(variables[key]):
            if not isinstance(copy, dict) or not isinstance(copy.get("name"), str):
                raise invalid_template("a copy loop needs a name", path=f"variables.copy[{place}]")
            # Worked out as an object with one property, which is the loop's.
            self._evaluator.variables = found
            made = self._evaluator.evaluate({"copy": [{"input": None, **copy}]}, "variables")
            found |= {name: _escape(value) for name, value in made.items()}
        return found

    def _plan(self) -> None:
        source = _pick(self._document, "resources")
        if not isinstance(source, list | dict):
            raise invalid_template("a template has a list of resources", path="resources")
        found: dict[str, PlannedResource] = {}
        for resource in expand(source, self._evaluator):
            if resource.key in found:
                raise invalid_template(
                    f"The resource '{resource.id}' is defined multiple times", path=resource.path
                )
            found[resource.key] = resource
            if len(found) > MAX_RESOURCES:
                raise invalid_template(f"there are more than {MAX_RESOURCES} resources")
        for resource in found.values():
            for name in resource.spellings:
                self._names.setdefault(name, []).append(resource)
        needs = {key: self._find_needs(each) for key, each in found.items()}
        self.resources = tuple(
            found[key].with_needs(frozenset(needs[key])) for key in _sort(needs, found)
        )

    def _find_needs(self, resource: PlannedResource) -> set[str]:
        needs = set(resource.needs)
        for name in resource.depends_on:
            meant = self.find_named(name)
            if not meant:
                raise invalid_template(
                    f"The resource '{name[:300]}' is not defined in the template",
                    path=f"{resource.path}.dependsOn",
                )
            needs |= {each.key for each in meant}
        for name in self._find_references(resource):
            needs |= {each.key for each in self.find_named(name)}
        return needs - {resource.key}

    def _find_references(self, resource: PlannedResource) -> Iterator[str]:
        parts = [value for key, value in resource.source.items() if key.lower() not in _NOT_SENT]
        if resource.is_deployment:  # what the template in it refers to, is in it
            parts = [
                {key: each for key, each in part.items() if key.lower() != "template"}
                if isinstance(part, dict)
                else part
                for part in parts
            ]
        for text in find_texts(parts):
            if not is_expression(text) or "reference" not in text.lower():
                continue
            try:
                nodes = list(walk(parse_expression(text)))
            except Fault:
                continue  # told with its place when the body is made
            for node in nodes:
                if isinstance(node, Invocation) and node.name.lower() == "reference":
                    try:
                        name = self._evaluator.work_out(
                            node.arguments[0], resource.path, resource.loops
                        )
                    except (Fault, ArmError, IndexError, RecursionError):
                        continue
                    if isinstance(name, str):
                        yield name

    def _evaluate_part(self, resource: PlannedResource, key: str, value: Json) -> Json:
        path = f"{resource.path}.{key}"
        if resource.is_deployment and key.lower() == "properties" and isinstance(value, dict):
            return {
                name: each
                if name.lower() == "template"
                else self._evaluator.evaluate(each, f"{path}.{name}", resource.loops)
                for name, each in value.items()
            }
        return self._evaluator.evaluate(value, path, resource.loops)

    def _make_output(self, path: str, declared: Json) -> Json:
        if not isinstance(declared, dict):
            raise invalid_template("an output is an object with a type and a value", path=path)
        condition = _pick(declared, "condition")
        if condition is not None:
            wanted = self._evaluator.evaluate(condition, f"{path}.condition")
            if not isinstance(wanted, bool):
                raise invalid_template("a condition is true or false", path=f"{path}.condition")
            if not wanted:
                return None
        kind = _pick(declared, "type")
        copy = _pick(declared, "copy")
        if isinstance(copy, dict):
            made = self._evaluator.evaluate({"copy": [{"input": None, **copy, "name": "v"}]}, path)
            value = made["v"]
        else:
            value = self._evaluator.evaluate(_pick(declared, "value"), f"{path}.value")
        if not is_of_type(value, kind) and not (value is None and _pick(declared, "nullable")):
            raise invalid_template(f"the value is not of the type {str(kind)[:40]}", path=path)
        return {"type": kind} if is_secure(declared) else {"type": kind, "value": value}

    def _make_look(self, find: FindNow) -> Callable[[str, bool], Json]:
        def look(name: str, is_whole: bool) -> Json:  # noqa: FBT001 - the evaluator's form
            meant = self.find_named(name)
            if not meant and not name.lower().startswith("/subscriptions/"):
                raise Fault(f"'{name[:300]}' is neither an id nor the name of a resource here")
            meant = [each for each in meant if each.is_wanted] or meant
            if len(meant) > 1:
                ids = ", ".join(each.id for each in meant[:5])
                raise Fault(f"'{name[:300]}' may be any of {ids}: use resourceId()")
            if meant and not meant[0].is_wanted:
                raise Fault(f"'{meant[0].id}' is not deployed, because its condition is false")
            document = find(meant[0].id if meant else name)
            return document if is_whole else document.get("properties", {})

        return look


def check_depth(document: Json) -> None:
    """Raises ArmError for JSON that is nested deeper than anybody would write it."""
    stack = [(document, 0)]
    while stack:
        value, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise invalid_template(f"it is nested more than {MAX_DEPTH} levels deep")
        inner = value.values() if isinstance(value, dict) else value
        if isinstance(value, dict | list):
            stack.extend((each, depth + 1) for each in inner)


def find_texts(value: Json) -> Iterator[str]:
    """Every text in a value, keys too."""
    stack = [value]
    while stack:
        found = stack.pop()
        if isinstance(found, str):
            yield found
        elif isinstance(found, dict):
            stack.extend(found.keys())
            stack.extend(found.values())
        elif isinstance(found, list):
            stack.extend(found)


def _sort(needs: Mapping[str, set[str]], found: Mapping[str, PlannedResource]) -> list[str]:
    """Each after what it needs, else in the template's order. Raises ArmError for a circle."""
    users: dict[str, list[str]] = {key: [] for key in needs}
    missing = {key: len(each) for key, each in needs.items()}
    for key, each in needs.items():
        for need in each:
            users[need].append(key)
    ready = [key for key in needs if not missing[key]]
    order: list[str] = []
    for key in ready:  # grows while it is gone through
        order.append(key)
        for user in users[key]:
            missing[user] -= 1
            if not missing[user]:
                ready.append(user)
    if len(order) < len(needs):
        stuck = [found[key] for key in needs if missing[key]]
        names = ", ".join(f"'{each.name}'" for each in stuck[:10])
        raise invalid_template(
            f"Circular dependency detected: {names} wait for each other", path=stuck[0].path
        )
    return order


def _escape(value: Json) -> Json:
    """A value that is worked out already, so that it stays what it is when it is so again."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, list):
        return [_escape(each) for each in value]
    if isinstance(value, dict):
        return {_escape(key): _escape(each) for key, each in value.items()}
    return value


def _pick(document: Mapping[str, Json], name: str) -> Json:
    key = find_key(dict(document), name)
    return None if key is None else document[key]


__all__ = ["FindNow", "PlannedResource", "Setting", "Template"]
