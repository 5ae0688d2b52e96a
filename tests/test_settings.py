import os
import subprocess
import sys

import pytest

from labctl.drivers.keys import ensure_controller_key
from labctl.settings import load_settings, make_passable
from labctl.store.database import Database


def mode_of(path):
    return path.stat().st_mode & 0o777


@pytest.fixture
def _private_umask():
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_private_umask")
def test_the_user_of_qemu_passes_every_directory_that_is_made_whatever_the_umask(tmp_path):
    make_passable(tmp_path / "a" / "b")
    assert [mode_of(tmp_path / "a"), mode_of(tmp_path / "a" / "b")] == [0o711, 0o711]


def test_a_directory_that_is_there_stays_as_it_is(tmp_path):
    (tmp_path / "mine").mkdir(mode=0o750)
    make_passable(tmp_path / "mine")
    assert mode_of(tmp_path / "mine") == 0o750


def test_a_file_in_the_way_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_passable(tmp_path / "file")
    with pytest.raises(NotADirectoryError):
        make_passable(tmp_path / "file" / "below")


@pytest.mark.usefixtures("_private_umask")
@pytest.mark.parametrize("first", ["store", "key", "doctor", "build"])
def test_the_state_directory_is_passable_whatever_makes_it(tmp_path, first):
    state = tmp_path / "state"
    if first == "store":
        Database(state / "labctl.db")
    elif first == "key":
        ensure_controller_key(load_settings(state_dir=state))
    else:
        words = {
            "doctor": ["doctor"],
            "build": ["image", "build", "images/none", "--version", "1.0.0"],
        }
        command = [sys.executable, "-m", "labctl", "--state-dir", str(state), *words[first]]
        subprocess.run(command, check=False, capture_output=True)
    assert not state.exists() or mode_of(state) == 0o711
