"""Options and where they lead."""

import sys
from pathlib import Path

import pytest

from labctl.cli import context
from labctl.cli.context import Options, current_context, current_options, set_options
from labctl.cli.output import Output


@pytest.fixture(autouse=True)
def options():
    set_options(Options())


def test_options_that_are_not_given_change_nothing():
    set_options(Options(uri="test:///default", output=Output.YAML))
    context.set_uri(None)
    context.set_output(None)
    context.set_state_dir(None)
    context.set_verbose(value=False)
    assert current_options() == Options(uri="test:///default", output=Output.YAML)


def test_the_later_option_wins(tmp_path):
    context.set_state_dir(Path("/first"))
    context.set_state_dir(tmp_path)
    context.set_uri("test:///default")
    found = current_context()
    assert found.settings.state_dir == tmp_path
    assert found.settings.uri == "test:///default"


def test_progress_stays_out_of_results_that_programs_read():
    assert current_context().story is sys.stdout
    context.set_output(Output.JSON)
    assert current_context().story is sys.stderr
