"""`labctl export` and `labctl import`: scale sets as YAML specs and as resources of Azure."""

import json
import re
import sys
from collections.abc import Container, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labctl.cli.context import current_context
from labctl.cli.output import Output, print_document
from labctl.cli.spec_plain import make_plain
from labctl.errors import InvalidError

if TYPE_CHECKING:
    from labctl.arm.errors import ArmError
    from labctl.model.yaml_text import Document

_LIMIT = 4 * 2**20  # bytes, as for deployments
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_PAIR = re.compile(
    r"(?<!\\)((?:\\\\)*)\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})", re.IGNORECASE
)
# What is kept of a document though the spec says the same, each by the begin of its path.
_SAID = (
    "sku.name",
    "properties.virtualMachineProfile.storageProfile.imageReference",
    "properties.virtualMachineProfile.storageProfile.dataDisks",
    "properties.virtualMachineProfile.storageProfile.osDisk.createOption",
    "properties.virtualMachineProfile.extensionProfile.extensions",
    "properties.virtualMachineProfile.osProfile.linuxConfiguration",
    "properties.orchestrationMode",
)


def export(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The scale set.")],
    arm: Annotated[bool, typer.Option("--arm", help="As a template of Azure.")] = False,
    resource: Annotated[
        bool, typer.Option("--resource", help="With --arm: the resource without a template.")
    ] = False,
) -> None:
    """Print a scale set as a YAML spec, or with --arm as a template that can be deployed.

    Protected settings become parameters of the template; elsewhere they are masked. Custom data is
    printed.
    """
    from labctl.cli.follow import opened_store
    from labctl.controller.desired import load_wish

    context = current_context()
    if resource and not arm:
        raise InvalidError("--resource is only for --arm", hint=f"run: labctl export {name} --arm")
    with opened_store(context) as database, database.read() as connection:
        spec = load_wish(connection, name)
        kept = _find_kept(connection, spec.name)
    if not arm:
        plain = make_plain(spec)
        print_document(plain, Output.YAML if context.output is Output.TABLE else context.output)
        return
    from labctl.arm.portable import make_resource, make_template

    document = make_resource(spec, kept)
    found = document if resource else make_template(document)
    print_document(found, Output.JSON if context.output is Output.TABLE else context.output)


def _find_kept(connection: Any, name: str) -> dict[str, Any]:  # noqa: ANN401  SQLAlchemy's
    from labctl.arm.vmss_render import TYPE
    from labctl.store.arm_resources import load_resources

    rows = load_resources(connection, type=TYPE)
    return next((row.document for row in rows if row.name.lower() == name), {})


def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSON or YAML; - reads standard input.")
    ],
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            metavar="DEFINITION[:VERSION]",
            help="The image to run in the place of the one that is named.",
        ),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter", metavar="NAME=VALUE", help="A parameter of the template; repeatable."
        ),
    ] = None,
) -> None:
    """Print a scale set of Azure as a YAML spec: a resource, or a template with one scale set.

    What a spec has no place for is told on stderr. Nothing is applied.
    """
    from labctl.arm.errors import ArmError
    from labctl.arm.portable import ImportFaultError, read_file
    from labctl.controller.clock import now
    from labctl.model.yaml_text import parse_yaml

    context = current_context()
    text, source = _read_text(file)
    document = parse_yaml(_make_readable(text), source)
    wanted = None
    if image is not None:
        definition, _, version = image.partition(":")
        wanted = (definition, version or "latest")
    texts = _find_text_parameters(document.value)
    parameters = dict(_read_parameter(each, texts) for each in parameter or ())
    try:
        found = read_file(document.value, parameters=parameters, image=wanted, now=now())
    except ImportFaultError as fault:
        raise _explain(fault.error, fault.path, document) from fault
    except ArmError as error:
        raise _explain(error, "", document) from error
    # With secrets: they come from the user's own file, and without them nothing could be applied.
    plain = make_plain(found.reading.spec, reveals=True)
    left_out = [path for path in _list_paths(found.reading.kept) if not path.startswith(_SAID)]
    if left_out:
        print(f"not in the spec: {', '.join(left_out)}", file=sys.stderr)
    print_document(plain, Output.YAML if context.output is Output.TABLE else context.output)


def _read_text(file: Path) -> tuple[str, str]:
    source = "<stdin>" if str(file) == "-" else str(file)
    try:
        if str(file) == "-":
            content = sys.stdin.buffer.read(_LIMIT + 1)
        else:
            with file.expanduser().open("rb") as opened:
                content = opened.read(_LIMIT + 1)
        if len(content) > _LIMIT:
            raise InvalidError(f"{source!r} has more than {_LIMIT // 2**20} MiB")
        return content.decode("utf-8-sig"), source
    except UnicodeDecodeError as error:
        raise InvalidError(f"{source!r} is not UTF-8 text", hint="save it as UTF-8") from error
    except (OSError, ValueError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidError(
            f"{source!r} cannot be read",
            detail=str(reason),
            hint="name a file of JSON or YAML, or - for standard input",
        ) from error


def _make_readable(text: str) -> str:
    """JSON for a parser of YAML, each value still in its line."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text

    def join(match: re.Match[str]) -> str:
        pair = bytes.fromhex(match.group(2) + match.group(3))
        return match.group(1) + pair.decode("utf-16-be")

    # Inside of quotes JSON has no tabs; characters beyond U+FFFF may be written as two.
    return _PAIR.sub(join, text.replace("\t", " "))


def _find_text_parameters(document: object) -> set[str]:
    """The parameters whose values are texts, even if they look like numbers; in lower case."""
    for key in ("properties", "template"):  # of what is sent to deploy a template
        if isinstance(document, dict) and isinstance(document.get(key), dict):
            document = document[key]
    declared = document.get("parameters") if isinstance(document, dict) else None
    return {
        str(name).lower()
        for name, each in (declared.items() if isinstance(declared, dict) else ())
        if isinstance(each, dict) and str(each.get("type")).lower() in {"string", "securestring"}
    }


def _read_parameter(text: str, texts: Container[str]) -> tuple[str, object]:
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise InvalidError(f"--parameter {text!r} is not NAME=VALUE")
    if name.lower() in texts:
        return name, value
    if value[:1] in {"{", "["} or re.fullmatch(r"-?\d{1,18}|true|false", value):
        try:
            return name, json.loads(value)
        except (ValueError, RecursionError):
            return name, value
    return name, value


def _explain(error: "ArmError", path: str, document: "Document") -> InvalidError:
    """Each fault with its line and column."""
    from labctl.model.yaml_text import invalid

    faults = []
    for each in error.details or (error,):
        steps = [
            int(number) if number else word
            for word, number in _STEP.findall(f"{path}.{each.target}" if path else each.target)
        ]
        faults.append((document.mark_of(steps), each.message))
    return invalid(
        document.source, faults, hint="correct it; labctl export NAME --arm shows how one looks"
    )


def _list_paths(value: object, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _list_paths(each, f"{path}.{key}" if path else key)
    else:
        yield path
