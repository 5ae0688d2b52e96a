"""Set-up, playbook and doctor agree on what a host needs; a prepared host is left alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from labctl.drivers import doctor_checks

ROOT = Path(__file__).parent.parent
ALWAYS_THERE = {"apt", "dpkg", "util-linux"}  # essential in Debian and Ubuntu


def _packages() -> list[str]:
    lines = (ROOT / ".setup" / "packages").read_text(encoding="utf-8").splitlines()
    return [name for line in lines if (name := line.partition("#")[0].strip())]


def test_no_package_is_listed_twice() -> None:
    assert sorted(_packages()) == sorted(set(_packages()))


def test_setup_installs_whatever_doctor_asks_for() -> None:
    asked = {*doctor_checks._IMAGE_TOOLS.values(), *doctor_checks._NAT_TOOLS.values()}
    assert asked - ALWAYS_THERE - set(_packages()) == set()


@pytest.mark.parametrize("recipe", sorted((ROOT / "images").glob("*/recipe.yaml")), ids=str)
def test_setup_installs_whatever_a_recipe_asks_for(recipe: Path) -> None:
    described = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    asked = {*described.get("tools", {}).values(), *described.get("files", {}).values()}
    assert asked - ALWAYS_THERE - set(_packages()) == set()


# Whatever changes something. What comes with sudo is looked at, too; only questions pass.
CHANGES = (
    *("apt-get", "pip", "uv", "systemctl", "virtlogd", "libvirtd", "chown", "chmod", "usermod"),
    *("rm", "tee"),
)
REFUSE = """#!/bin/sh
echo "$0 $*" >>{calls}
exit 97
"""
SUDO = """#!/bin/sh
for word; do
    case " {changes} " in *" $word "*) echo "sudo $*" >>{calls}; exit 97 ;; esac
done
exec {sudo} "$@"
"""


@pytest.mark.host
def test_setup_of_a_prepared_host_says_nothing_and_changes_nothing(tmp_path: Path) -> None:
    stamp = ROOT / ".venv" / ".labctl-setup"
    if not stamp.exists() or Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("this environment was not made by .setup/host")
    programs, calls = tmp_path / "programs", tmp_path / "calls"
    programs.mkdir()
    scripts = {name: REFUSE.format(calls=calls) for name in CHANGES}
    if sudo := shutil.which("sudo"):
        scripts["sudo"] = SUDO.format(changes=" ".join(CHANGES), calls=calls, sudo=sudo)
    for name, script in scripts.items():
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    made = [stamp, *(ROOT / ".venv" / "bin").iterdir()]
    before = {path: path.stat() for path in made}

    done = subprocess.run(
        [ROOT / ".setup" / "host"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not calls.exists(), calls.read_text()
    after = {path: path.stat() for path in made}
    assert [(s.st_ino, s.st_ctime_ns) for s in after.values()] == [
        (s.st_ino, s.st_ctime_ns) for s in before.values()
    ]


@pytest.mark.host
def test_the_playbook_is_well_formed_and_names_only_modules_that_are_there(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ansible", "playbook", "--syntax-check"),
            *("-i", "localhost,", ROOT / "playbooks" / "lab-host.yml"),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "ANSIBLE_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
