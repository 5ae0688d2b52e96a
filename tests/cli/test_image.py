import json
import subprocess

import pytest

from labctl.cli.app import main
from labctl.errors import ExitCode

pytestmark = pytest.mark.host


@pytest.fixture(autouse=True)
def state_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("LABCTL_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "my image.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "4M"], check=True)
    return path


@pytest.fixture
def recipe(tmp_path, image):
    directory = tmp_path / "recipe"
    directory.mkdir()
    (directory / "recipe.yaml").write_text(
        "name: demo\nosType: linux\nparameters: {fault: {default: none}}\n"
    )
    (directory / "build").write_text(f'#!/bin/sh\nexec cp "{image}" "$LABCTL_OUTPUT"\n')
    (directory / "build").chmod(0o755)
    return directory


def _import(image, version="1.0.0", *more):
    words = ["image", "import", str(image), "--definition", "tiny", "--version", version]
    return main([*words, *more])


def _json(capsys):
    return json.loads(capsys.readouterr().out)


def test_an_imported_image_is_listed_but_latest_only_once_published(image, capsys):
    assert _import(image) == 0
    assert "run: labctl image publish tiny/1.0.0" in capsys.readouterr().out
    assert main(["image", "show", "tiny/latest"]) == ExitCode.NOT_FOUND
    capsys.readouterr()
    assert main(["image", "publish", "tiny/1.0.0"]) == 0
    assert capsys.readouterr().out == "tiny/1.0.0 is published\n"
    assert main(["image", "publish", "tiny/1.0.0"]) == 0
    assert "was published already" in capsys.readouterr().out
    assert main(["image", "show", "tiny/latest", "-o", "json"]) == 0
    shown = _json(capsys)
    assert (shown["name"], shown["latest"], shown["usedBy"]) == ("tiny/1.0.0", True, [])


def test_the_list_is_ordered_by_number_and_marks_latest(image, capsys):
    for version in ("1.10.0", "1.9.0"):
        _import(image, version, "--publish")
    capsys.readouterr()
    assert main(["image", "list", "tiny", "-o", "json"]) == 0
    rows = _json(capsys)
    assert [(row["name"], row["latest"]) for row in rows] == [
        ("tiny/1.9.0", False),
        ("tiny/1.10.0", True),
    ]
    assert rows[0]["digest"] == rows[1]["digest"]
    assert main(["image", "list"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:3] == ["NAME", "PUBLISHED", "LATEST"]
    assert len(table) == 3


def test_an_excluded_image_is_not_latest(image, capsys):
    _import(image, "1.0.0", "--publish")
    _import(image, "1.1.0", "--publish")
    assert main(["image", "exclude", "tiny/1.1.0"]) == 0
    capsys.readouterr()
    assert main(["image", "show", "tiny/latest", "-o", "json"]) == 0
    assert _json(capsys)["name"] == "tiny/1.0.0"


def test_importing_the_same_again_says_that_nothing_changed(image, capsys):
    _import(image)
    capsys.readouterr()
    assert _import(image) == 0
    assert "nothing was changed" in capsys.readouterr().out


def test_delete_tells_whether_the_file_went(image, capsys):
    _import(image, "1.0.0")
    _import(image, "1.0.1")
    capsys.readouterr()
    assert main(["image", "delete", "tiny/1.0.0"]) == 0
    assert capsys.readouterr().out == "tiny/1.0.0 deleted; another version keeps its file\n"
    assert main(["image", "delete", "tiny/1.0.1", "-o", "json"]) == 0
    assert _json(capsys) == {"name": "tiny/1.0.1", "deleted": True, "fileDeleted": True}
    assert main(["image", "delete", "tiny/1.0.1"]) == ExitCode.NOT_FOUND


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "tiny"], ExitCode.NOT_FOUND, "the gallery is empty"),
        (["list", "tiny"], ExitCode.NOT_FOUND, "'tiny' is not in the gallery"),
        (["publish", "tiny"], ExitCode.INVALID, "is not NAME/VERSION"),
        (["delete", "tiny/1.0"], ExitCode.INVALID, "is not Major.Minor.Patch"),
        (["build", "nowhere", "--version", "1.0.0"], ExitCode.NOT_FOUND, "does not exist"),
        (["build", ".", "--version", "1"], ExitCode.INVALID, "is not Major.Minor.Patch"),
        (
            ["build", ".", "--version", "1.0.0", "--set", "fault"],
            ExitCode.INVALID,
            "is not NAME=VALUE",
        ),
        (
            ["import", "/nowhere", "--definition", "tiny", "--version", "1.0.0"],
            ExitCode.NOT_FOUND,
            "'/nowhere' does not exist",
        ),
        (
            ["import", "/nowhere", "--definition", "Tiny_", "--version", "1.0.0"],
            ExitCode.INVALID,
            "'Tiny_' is not a name",
        ),
    ],
)
def test_mistakes_name_the_value_and_have_their_exit_code(arguments, code, message, capsys):
    assert main(["image", *arguments]) == code
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown


def test_a_recipe_is_built_imported_and_the_second_time_taken_from_the_cache(
    recipe, capsys, tmp_path
):
    words = ["image", "build", str(recipe), "--version", "1.0.0", "--publish", "-o", "json"]
    assert main([*words, "--copy-to", str(tmp_path / "out.qcow2")]) == 0
    first = _json(capsys)
    assert (first["name"], first["fromCache"], first["isNew"]) == ("demo/1.0.0", False, True)
    assert first["buildId"]
    assert (tmp_path / "out.qcow2").stat().st_size == first["fileSize"]
    assert main(words) == 0
    again = _json(capsys)
    assert (again["fromCache"], again["isNew"]) == (True, False)
    assert again["buildId"] == first["buildId"]


def test_a_build_can_go_to_another_definition(recipe, capsys):
    words = ["image", "build", str(recipe), "--version", "1.0.0", "--definition", "other"]
    assert main(words) == 0
    assert "other/1.0.0: built" in capsys.readouterr().out


def test_an_image_with_ignition_stays_one(image, capsys):
    assert _import(image, "1.0.0", "--os-type", "flatcar") == 0
    assert _import(image, "1.0.0", "--os-type", "flatcar") == 0
    assert _import(image, "1.1.0") == ExitCode.REFUSED
    assert "image definition 'tiny' is for flatcar, not for linux" in capsys.readouterr().err
    assert _import(image, "1.1.0", "--os-type", "beos") == ExitCode.INVALID


def test_windows_may_be_written_as_azure_does(image, capsys):
    assert _import(image, "1.0.0", "--os-type", "Windows") == 0
    assert _import(image, "1.1.0", "--os-type", "windows") == 0
    assert _import(image, "1.2.0") == ExitCode.REFUSED
    assert "image definition 'tiny' is for windows, not for linux" in capsys.readouterr().err
