"""The lab that most end-to-end tests share."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Lab, share_build_cache, state_directory
from tests.e2e.private_libvirt import PrivateLibvirt, running_libvirt


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab that most tests share; each uses its own scale sets."""
    with state_directory() as path:
        share_build_cache(path)
        made = Lab(path)
        made.build("1.0.0", "--publish")
        made.build("1.1.0", "--publish")
        yield made
        for row in made.json("list"):
            made.remove(row["name"])


@pytest.fixture(scope="session")
def tiny_files() -> Iterator[dict[str, Path]]:
    """Image files of tiny by version, which any user may read."""
    with state_directory() as path:
        share_build_cache(path)
        lab = Lab(path)
        files = {version: path / f"tiny-{version}.qcow2" for version in ("1.0.0", "1.1.0")}
        for version, file in files.items():
            lab.build(version, "--copy-to", str(file))
            file.chmod(0o444)
        yield files


@pytest.fixture(scope="session")
def private_libvirt() -> Iterator[PrivateLibvirt]:
    """A libvirtd that a test may kill, on a network of its own."""
    if os.geteuid() != 0:
        pytest.skip("namespaces for a libvirtd of our own need root")
    with running_libvirt() as libvirt:
        yield libvirt


@pytest.fixture(scope="session")
def private_lab(private_libvirt: PrivateLibvirt, tiny_files: dict[str, Path]) -> Iterator[Lab]:
    """A lab on the private libvirtd."""
    with state_directory() as path:
        made = Lab(path, private_libvirt.prefix)
        made.import_images(tiny_files)
        yield made
        for row in made.json("list"):
            made.remove(row["name"])


@pytest.fixture
def broken(lab: Lab) -> Callable[[str], str]:
    """Build a broken version of tiny, once; returns its number."""
    numbers = {
        "unhealthy": "2.0.0",
        "panic": "2.1.0",
        "no-boot": "2.2.0",
        "poweroff": "2.3.0",
        "no-ssh": "2.4.0",
    }

    def build(fault: str) -> str:
        lab.build(numbers[fault], "--set", f"fault={fault}")
        return numbers[fault]

    return build
