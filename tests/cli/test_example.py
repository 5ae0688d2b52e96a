"""The specs to start from."""

from pathlib import Path

import pytest

from labctl.cli.app import main
from labctl.cli.example import list_examples, read_example
from labctl.cli.spec_file import load_spec, parse_spec
from labctl.errors import ExitCode


@pytest.mark.parametrize("name", list_examples())
def test_every_example_loads_and_tells_editors_of_the_schema(name):
    text = read_example(name)
    spec = parse_spec(text, source=name, base=Path("/nowhere"))
    assert spec.capacity > 1
    assert text.startswith("# yaml-language-server: $schema=labctl.schema.json\n")
    assert max(len(line) for line in text.splitlines()) <= 100


def test_the_help_names_every_example(capsys):
    assert main(["example", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in list_examples())


def test_an_example_can_be_saved_and_loaded(tmp_path, capsys):
    assert main(["example"]) == 0
    path = tmp_path / "web.yaml"
    path.write_text(capsys.readouterr().out)
    spec = load_spec(path)
    assert spec.name == "web"
    assert [extension.name for extension in spec.extensions] == ["configure", "announce"]
    assert spec.extensions[1].provision_after_extensions == ("configure",)


def test_an_unknown_example_is_answered_with_the_known_ones(capsys):
    assert main(["example", "tyni"]) == ExitCode.INVALID
    assert "there are: debian, nat, tiny" in capsys.readouterr().err
