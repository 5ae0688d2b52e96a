"""The README says what the program does: every command, option, key and code, and nothing else."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from labctl.cli.app import TREE, Branch, main
from labctl.cli.example import list_examples
from labctl.cli.schema import make_schema
from labctl.errors import ExitCode
from labctl.model.upgrade import MemberState, UpgradeErrorCode

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROWS = [line for line in README.splitlines() if line.startswith("| ")]
SHARED = {"--state-dir", "--uri", "--output", "--verbose", "--help"}
SHARED |= {"--server", "--ca", "--token-file"}


def _commands() -> Iterator[str]:
    for name, entry in TREE.items():
        if isinstance(entry, Branch):
            yield from (f"{name} {inner}" for inner in entry.entries)
        else:
            yield name


def _row_of(text: str) -> str:
    """The table row whose first cell begins with `text`, whole words."""
    pattern = re.compile(rf"^\| `{re.escape(text)}[` ]")
    found = [row for row in ROWS if pattern.match(row)]
    assert len(found) == 1, f"{text!r} has {len(found)} rows in the README"
    return found[0]


def _help_of(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([*words.split(), "--help"]) == 0
    return capsys.readouterr().out


def _lines() -> list[str]:
    """Every command line of labctl that the README shows."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", README, flags=re.M | re.S))
    assert not any("\n" in span for span in spans)
    return [line for line in [*lines, *spans] if line.startswith("labctl ")]


@pytest.mark.parametrize("command", list(_commands()))
def test_every_command_has_a_row_with_every_option(command, capsys):
    own = set(re.findall(r"--[a-z][a-z-]+", _help_of(command, capsys).partition("Options:\n")[2]))
    row = _row_of(command)
    assert {option for option in own - SHARED if f"`{option}" not in row} == set()


def test_options_that_every_command_takes_are_described(capsys):
    words = set(re.findall(r"--[a-z][a-z-]+", _help_of("", capsys)))
    assert {word for word in words if word not in README} == set()


@pytest.mark.parametrize("line", sorted(set(_lines())))
def test_every_command_line_that_is_shown_is_understood(line, capsys):
    words = shlex.split(line, comments=True)[1:]
    words = words[: words.index(">")] if ">" in words else words
    if words[0].startswith("--"):  # labctl --version
        assert words[0] in _help_of("", capsys)
        return
    depth = 2 if words[0] == "image" or isinstance(TREE.get(words[0]), Branch) else 1
    # Right behind the command: unknown commands and options are refused before the help is shown.
    assert main([*words[:depth], "--help", *words[depth:]]) == 0, capsys.readouterr().err


def test_a_command_line_with_a_mistake_would_be_noticed():
    for words in (["shwo", "--help"], ["show", "--help", "web", "--rollback"]):
        assert main(words) == ExitCode.INVALID


def _keys(
    part: dict[str, Any], schema: dict[str, Any], path: str = ""
) -> Iterator[tuple[str, Any]]:
    for key, field in part["properties"].items():
        yield path + key, {**field, "required": key in part.get("required", ())}
        choices = [field, field.get("items", {}), *field.get("anyOf", ())]
        inner = next((choice["$ref"] for choice in choices if "$ref" in choice), None)
        target = schema["$defs"][inner.rpartition("/")[2]] if inner else {}
        if "properties" in target:
            yield from _keys(target, schema, f"{path}{key}{'[]' if 'items' in field else ''}.")


def _spec_keys() -> dict[str, Any]:
    """Every key; those that both sources of health have are described once."""
    every = dict(_keys(make_schema(), make_schema()))
    found: dict[str, Any] = {}
    for key, field in every.items():
        source, dot, rest = key.rpartition(".")
        is_shared = dot and f"health.probe.{rest}" in every
        if source == "health.applicationHealth" and is_shared:
            continue
        found[key.replace("health.probe.", "health.SOURCE.")] = field
    return found


SPEC_KEYS = _spec_keys()
REFERENCE = README[README.index("\n## Spec reference") : README.index("\n## Health\n")]
REFERENCE_ROWS = dict(re.findall(r"^\| `([^`]+)` \| (.*) \|$", REFERENCE, re.M))


@pytest.mark.parametrize("key", list(SPEC_KEYS))
def test_every_key_of_a_spec_has_a_row_with_its_default_and_bounds(key):
    field, cells = SPEC_KEYS[key], [cell.strip() for cell in REFERENCE_ROWS[key].split("|")]
    default = field.get("default")
    if field["required"]:
        assert cells[1] == "required"
    elif isinstance(default, str | int):
        assert cells[1] == f"`{str(default).lower() if isinstance(default, bool) else default}`"
    else:
        assert cells[1] != "required"
    for choice in (field, *field.get("anyOf", ())):
        bounds = [str(choice[word]) for word in ("minimum", "maximum") if word in choice]
        assert not bounds or " to ".join(bounds) in cells[2]


def test_the_reference_describes_no_key_that_is_not_there():
    assert list(REFERENCE_ROWS) == list(SPEC_KEYS)


def test_every_exit_code_has_a_row():
    assert all(f"\n| {code.value} | " in README for code in ExitCode)


def test_every_state_and_error_of_an_upgrade_is_named():
    assert all(f"`{code.value}`" in README for code in UpgradeErrorCode)
    assert all(state.value in README for state in MemberState)


def test_every_environment_variable_that_is_read_is_named():
    sources = [*(ROOT / "labctl").rglob("*.py"), *(ROOT / "images").glob("*/build*")]
    text = "".join(path.read_text(encoding="utf-8") for path in [*sources, ROOT / "Vagrantfile"])
    wanted = set(re.findall(r'"(LABCTL_[A-Z_]+[A-Z])"|\$\{(LABCTL_\w+_MIRROR)', text))
    names = {name for pair in wanted for name in pair if name}
    # What a recipe's program is given, what marks a script in the guest, and what the daemon tells
    # commands of clients, is no setting.
    given = re.compile(
        r"LABCTL_(PARAM_.*|IMAGE_VERSION|BUILD_ID|GREETING|OUTPUT|WORK|CACHE"
        r"|REMOTE_SCOPE|SENT_FILES)"
    )
    assert {name for name in names if not given.fullmatch(name) and name not in README} == set()
    assert "LABCTL_STATE_DIR" in names


@pytest.mark.parametrize("recipe", sorted((ROOT / "images").glob("*/recipe.yaml")), ids=str)
def test_every_recipe_and_its_parameters_have_rows(recipe):
    _row_of(f"images/{recipe.parent.name}")
    described = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    for name, parameter in described["parameters"].items():
        rows = [r for r in ROWS if r.startswith(f"| `{name}` |") and described["name"] in r]
        assert len(rows) == 1
        assert all(f"`{value}`" in rows[0] for value in parameter["values"])


def test_every_example_and_target_is_named():
    assert all(f"`{name}`" in _row_of("example") for name in list_examples())
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+): .*## ", makefile, re.M)) - {"help"}
    assert targets == set(re.findall(r"^\| `make ([a-z]+)` \|", README, re.M))


def test_every_link_inside_the_page_leads_somewhere():
    headings = re.findall(r"^#+ (.*)$", README, re.M)
    anchors = {re.sub(r"[^a-z0-9 -]", "", text.lower()).replace(" ", "-") for text in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors


def _page_rows() -> list[str]:
    section = README.partition("## The page, sentence by sentence\n")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")][2:]


@pytest.mark.parametrize("row", _page_rows(), ids=lambda row: row.split("|")[1].strip()[:40])
def test_every_sentence_of_the_page_is_shown_by_something_that_exists(row):
    shown = row.split("|")[2].strip()
    assert shown
    for name in re.findall(r"`(tests/[^`]+)`", shown):
        path, _, test = name.partition("::")
        assert (ROOT / path).exists(), path
        assert not test or f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), name
    for story in re.findall(r"`([a-z_]+_[a-z_]+)`", shown):
        assert (ROOT / "tests/planner/stories" / f"{story}.txt").exists(), story
