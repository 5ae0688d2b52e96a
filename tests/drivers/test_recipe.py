import json
import multiprocessing
from pathlib import Path

import pytest

from labctl.drivers.recipe import build_image, load_recipe
from labctl.errors import HostError, InvalidError, LabError, NotFoundError
from labctl.model.image import VersionNumber
from labctl.settings import Settings

pytestmark = pytest.mark.host  # it runs real programs: the shell

RECIPE = """\
name: demo
osType: linux
description: for tests
parameters:
  fault: {default: none, values: [none, panic], description: what is wrong}
  disk-label: {default: root, description: any}
tools: {sh: dash}
"""
BUILD = """\
#!/bin/sh
echo "building in $LABCTL_WORK"
[ -d "$LABCTL_WORK" ] && [ -d "$LABCTL_CACHE" ] || exit 1
echo run >>"$LABCTL_CACHE/runs"
printf '%s|%s|%s|%s|%s' "$LABCTL_IMAGE_VERSION" "$LABCTL_BUILD_ID" "$LABCTL_GREETING" \
    "$LABCTL_PARAM_FAULT" "$LABCTL_PARAM_DISK_LABEL" >"$LABCTL_OUTPUT"
"""


@pytest.fixture
def lab(tmp_path):
    return Settings(state_dir=tmp_path / "state", uri="test:///default")


@pytest.fixture
def recipe_dir(tmp_path):
    directory = tmp_path / "a recipe's folder"
    directory.mkdir()
    _write(directory)
    return directory


def _write(directory, recipe=RECIPE, build=BUILD):
    (directory / "recipe.yaml").write_text(recipe)
    (directory / "build").write_text(build)
    (directory / "build").chmod(0o755)


def _build(lab, recipe_dir, version="1.0.0", greeting="hi", **parameters):
    return build_image(
        recipe_dir,
        version=VersionNumber.parse(version),
        parameters={name.replace("_", "-"): value for name, value in parameters.items()},
        greeting=greeting,
        settings=lab,
    )


def _runs(lab):
    return (lab.cache_dir / "recipes" / "demo" / "runs").read_text().count("\n")


def test_a_build_gets_version_id_greeting_and_parameters(lab, recipe_dir):
    built = _build(lab, recipe_dir, greeting='"$HOME" it\'s', fault="panic")
    assert built.path.read_text() == f'1.0.0|{built.build_id}|"$HOME" it\'s|panic|root'
    assert not built.from_cache
    assert built.path.stat().st_mode & 0o222 == 0
    assert {path.suffix for path in built.path.parent.iterdir()} == {".qcow2", ".json", ".log"}


def test_the_same_build_again_is_taken_from_the_cache(lab, recipe_dir):
    first = _build(lab, recipe_dir)
    again = _build(lab, recipe_dir)
    assert (again.path, again.build_id, again.from_cache) == (first.path, first.build_id, True)
    assert _runs(lab) == 1


@pytest.mark.parametrize(
    "change", [{"version": "1.0.1"}, {"greeting": "ho"}, {"fault": "panic"}, {"disk_label": "x"}]
)
def test_other_inputs_make_another_build(lab, recipe_dir, change):
    first = _build(lab, recipe_dir)
    other = _build(lab, recipe_dir, **change)
    assert not other.from_cache
    assert other.build_id != first.build_id
    assert other.path.read_text() != first.path.read_text()


def test_a_changed_recipe_file_or_mode_makes_another_build(lab, recipe_dir):
    (recipe_dir / "files").mkdir()
    extra = recipe_dir / "files" / "motd"
    extra.write_text("a")
    _build(lab, recipe_dir)
    extra.write_text("b")
    assert not _build(lab, recipe_dir).from_cache
    extra.chmod(0o755)
    assert not _build(lab, recipe_dir).from_cache
    assert _build(lab, recipe_dir).from_cache


def test_what_a_recipe_includes_counts_as_part_of_it(lab, recipe_dir, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "part").write_text("a")
    _write(recipe_dir, recipe=RECIPE + "include: [../shared]\n")
    _build(lab, recipe_dir)
    (shared / "part").write_text("b")
    assert not _build(lab, recipe_dir).from_cache


def test_an_included_path_that_is_not_there_is_named(lab, recipe_dir):
    _write(recipe_dir, recipe=RECIPE + "include: [../shared]\n")
    with pytest.raises(NotFoundError, match=r"\.\./shared"):
        _build(lab, recipe_dir)


@pytest.mark.parametrize(
    ("parameters", "brief", "detail"),
    [
        ({"colour": "red"}, "has no parameter 'colour'", "it has: fault, disk-label"),
        ({"fault": "fire"}, "cannot be 'fire'", "allowed: none, panic"),
    ],
)
def test_unknown_parameters_and_values_are_refused(lab, recipe_dir, parameters, brief, detail):
    with pytest.raises(InvalidError, match=brief) as caught:
        _build(lab, recipe_dir, **parameters)
    assert caught.value.detail == detail


@pytest.mark.parametrize("missing", ["recipe.yaml", "build"])
def test_a_missing_recipe_file_is_named(lab, recipe_dir, missing):
    (recipe_dir / missing).unlink()
    with pytest.raises(NotFoundError) as caught:
        _build(lab, recipe_dir)
    assert str(recipe_dir / missing) in caught.value.brief.replace('"', "")


def test_a_missing_recipe_folder_is_named(lab, tmp_path):
    with pytest.raises(NotFoundError, match="does not exist"):
        _build(lab, tmp_path / "images" / "tyni")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name: demo\nosType: linux\ncolour: red\n", "colour: Extra inputs"),
        ("name: Demo!\nosType: linux\n", "name: String should match"),
        ("osType: linux\n", "name: Field required"),
        ("- 1\n", "recipe: Input should be"),
    ],
)
def test_what_a_recipe_cannot_say_is_told_with_its_key(recipe_dir, text, fault):
    _write(recipe_dir, recipe=text)
    with pytest.raises(InvalidError) as caught:
        load_recipe(recipe_dir)
    assert fault in caught.value.detail


def test_a_build_that_cannot_be_run_is_told_how_to_mend_it(lab, recipe_dir):
    (recipe_dir / "build").chmod(0o644)
    with pytest.raises(InvalidError) as caught:
        _build(lab, recipe_dir)
    assert "chmod +x" in caught.value.hint


def test_missing_tools_and_files_are_told_with_their_packages(lab, recipe_dir):
    tools = "tools: {sh: dash, mformat-x: mtools, syslinux-x: syslinux}\nfiles: {/no/mbr: mbr}\n"
    _write(recipe_dir, recipe="name: demo\nosType: linux\n" + tools)
    with pytest.raises(HostError) as caught:
        _build(lab, recipe_dir)
    assert "mformat-x, syslinux-x, /no/mbr" in caught.value.brief
    assert caught.value.hint == "run: apt-get install mbr mtools syslinux"


def test_a_failed_build_shows_the_end_of_its_log_and_can_be_repeated(lab, recipe_dir):
    _write(recipe_dir, build="#!/bin/sh\necho part >$LABCTL_OUTPUT\necho no space >&2\nexit 3\n")
    with pytest.raises(LabError, match="failed") as caught:
        _build(lab, recipe_dir)
    assert "no space" in caught.value.detail
    (log,) = (lab.cache_dir / "builds").iterdir()  # neither an image nor its part
    assert str(log) in caught.value.hint
    _write(recipe_dir)
    assert not _build(lab, recipe_dir).from_cache


def test_a_build_without_output_is_a_failure(lab, recipe_dir):
    _write(recipe_dir, build="#!/bin/sh\necho done\n")
    with pytest.raises(LabError, match="wrote no image"):
        _build(lab, recipe_dir)


def test_the_record_beside_the_image_says_what_it_is(lab, recipe_dir):
    built = _build(lab, recipe_dir)
    record = json.loads(built.path.with_suffix(".json").read_text())
    assert record == {
        "recipe": "demo",
        "version": "1.0.0",
        "buildId": built.build_id,
        "parameters": {"fault": "none", "disk-label": "root"},
        "greeting": "hi",
    }


def _build_in_process(lab, recipe_dir, results):
    built = _build(lab, recipe_dir)
    results.put((built.build_id, built.from_cache))


def test_two_builds_at_once_take_turns_and_the_second_uses_the_first(lab, recipe_dir):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(target=_build_in_process, args=(lab, recipe_dir, results)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    told = [results.get(timeout=40) for _ in processes]
    for process in processes:
        process.join(20)
    assert len({build_id for build_id, _ in told}) == 1
    assert sorted(from_cache for _, from_cache in told) == [False, True]
    assert _runs(lab) == 1


def test_the_log_can_be_followed_while_the_build_runs(lab, recipe_dir):
    _write(
        recipe_dir,
        build='#!/bin/sh\necho first line\nset -- "$LABCTL_WORK"/../*.log\n'
        'grep -q "first line" "$1" && : >"$LABCTL_OUTPUT"\n',
    )
    assert _build(lab, recipe_dir).path.exists()


def test_every_recipe_of_the_project_can_be_read():
    images = Path(__file__).parents[2] / "images"
    recipes = [path.parent for path in images.glob("*/recipe.yaml")]
    assert {load_recipe(path).name for path in recipes} == {path.name for path in recipes}
    assert {path.name for path in recipes} >= {"tiny", "debian-12", "debian-13"}
