"""What a change needs, told before it is applied."""

import json
from datetime import UTC, datetime

import pytest
import yaml

from labctl.cli.app import main
from labctl.controller.desired import NO_CAPACITY, apply_spec
from labctl.controller.record import record
from labctl.errors import ExitCode
from labctl.model.image import ImageDefinition, ImageVersion, VersionNumber
from labctl.model.plan import CreateInstance
from labctl.model.spec import ScaleSetSpec
from labctl.store.database import Database
from labctl.store.gallery import add_version, ensure_definition
from labctl.store.scale_sets import load_view
from tests.controller.identities import make_identity

NOW = datetime(2026, 11, 23, tzinfo=UTC)
SPEC = {"name": "web", "capacity": 1, "image": {"definition": "tiny", "version": "1.0.0"}}


@pytest.fixture
def state(tmp_path):
    """A store with a scale set of one."""
    database = Database(tmp_path / "labctl.db")
    with database.write() as connection:
        ensure_definition(connection, ImageDefinition(name="tiny", os_type="linux"), NOW)
        version = ImageVersion(
            definition="tiny",
            version=VersionNumber(1, 0, 0),
            digest="0" * 64,
            file_size=1,
            virtual_size=1,
            created_at=NOW,
            published_at=NOW,
        )
        add_version(connection, version)
        apply_spec(connection, ScaleSetSpec.model_validate(SPEC), now=NOW)
        view = load_view(connection, "web", capacity=NO_CAPACITY)
        created = CreateInstance(ordinal=0, reason="capacity 1")
        record(connection, view, (created,), now=NOW, new_identity=make_identity)
    database.close()
    return tmp_path


def dry_run(state, *words, **changes):
    file = state / "web.yaml"
    file.write_text(yaml.safe_dump(SPEC | changes))
    return main(["--state-dir", str(state), "apply", str(file), "--dry-run", *words])


def test_a_dry_run_prints_each_field_and_each_instance(state, capsys):
    assert dry_run(state, size={"vcpus": 2}, capacity=2) == 0
    assert capsys.readouterr().out.splitlines() == [
        "web: capacity 1 -> 2",
        "web: size changed, which needs a restart (processors and memory are given at power-on); "
        "new instances get it, the others by labctl update-instances web, or with their next "
        "upgrade (labctl upgrade plan web)",
        "  capacity: Nothing  (it is about the scale set, not about its instances)",
        "  size: Restart  (processors and memory are given at power-on)",
        "  web_0: Restart  (has model 1)",
    ]


def test_a_dry_run_for_programs(state, capsys):
    assert dry_run(state, "-o", "json", customData={"inline": "#!/bin/sh\n"}) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["dryRun"], told["mode"], told["need"]) == (True, "Manual", "OsSwap")
    assert told["impacts"] == [
        {
            "field": "customData",
            "need": "OsSwap",
            "reason": "custom data runs once on each new OS disk",
            "reruns": [],
        }
    ]
    assert told["instances"] == [{"instance": "web_0", "modelRevision": 1, "need": "OsSwap"}]


def test_a_dry_run_changes_nothing_so_that_the_next_one_tells_the_same(state, capsys):
    for _ in (1, 2):
        assert dry_run(state, size={"vcpus": 2}) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :]
    assert dry_run(state) == 0
    assert capsys.readouterr().out == "web: nothing to change\n"


def test_a_dry_run_refuses_as_apply_does(state, capsys):
    assert dry_run(state, network={"type": "nat"}) == ExitCode.REFUSED
    assert "the network of scale set 'web' cannot change" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [((), "no instance is named"), (("web_0", "--all"), "both instances and --all are named")],
)
def test_update_instances_wants_names_or_all(state, capsys, words, message):
    code = main(["--state-dir", str(state), "update-instances", "web", *words])
    assert code == ExitCode.INVALID
    assert message in capsys.readouterr().err
