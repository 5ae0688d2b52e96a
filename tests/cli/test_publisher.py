import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from labctl.cli.app import main
from labctl.errors import ExitCode
from labctl.model.image import OsType
from labctl.store.database import Database
from labctl.store.gallery import find_definition
from tests.drivers.publishers import shelves
from tests.drivers.publishers.server import PublisherServer, listing, sha256
from tests.drivers.publishers.signer import Signer

pytestmark = pytest.mark.host

UBUNTU = ["ubuntu", "server", "24.04"]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Larger than what is held in memory at once, so that a part of it can be on the disk."""
    folder = tmp_path_factory.mktemp("image")
    (folder / "raw").write_bytes(random.Random(3).randbytes(2**21))
    words = ["-f", "raw", "-O", "qcow2", folder / "raw", folder / "tiny.qcow2"]
    subprocess.run(["qemu-img", "convert", *words], check=True)
    return (folder / "tiny.qcow2").read_bytes()


@pytest.fixture(scope="module")
def signer():
    signer = Signer("Publisher <images@publisher.test>")
    yield signer
    signer.close()


@pytest.fixture(scope="module")
def stranger():
    stranger = Signer("Somebody else <somebody@else.test>")
    yield stranger
    stranger.close()


@pytest.fixture
def server():
    server = PublisherServer()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def state_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("LABCTL_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("LABCTL_KEYRINGS", raising=False)
    return tmp_path / "state"


@pytest.fixture
def shop(server, image, monkeypatch):
    shelves.fill(server, image)
    shelves.set_mirrors(server, monkeypatch)
    return server


@pytest.fixture
def keyring(state_dir, signer):
    def put(publisher):
        (state_dir / "keyrings").mkdir(parents=True, exist_ok=True)
        path = state_dir / "keyrings" / f"{publisher}.gpg"
        path.write_bytes(signer.export())
        return path

    return put


def _pull(*words):
    return main(["image", "pull", *words])


def _json(capsys):
    return json.loads(capsys.readouterr().out)


def _gallery(capsys):
    capsys.readouterr()
    assert main(["image", "list", "-o", "json"]) == 0
    return [(row["name"], row["published"]) for row in _json(capsys)]


def _downloads(state_dir):
    folder = state_dir / "cache" / "publishers" / "downloads"
    return sorted(path.suffix for path in folder.iterdir()) if folder.is_dir() else []


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (UBUNTU, "ubuntu-24-04/24.4.2026090500"),
        (["debian", "genericcloud", "12"], "debian-12-genericcloud/12.20261001.2600"),
        (["fedora", "cloud", "44"], "fedora-44/44.1.7"),
        (["rocky", "genericcloud-base", "9"], "rocky-9/9.10.2026090100"),
        (["almalinux", "genericcloud", "9"], "almalinux-9/9.6.2025052200"),
        (["centos", "stream", "9"], "centos-stream-9/9.0.2026052600"),
        (["centos", "linux", "7.5"], "centos-7-5/7.5.180900"),
        (["flatcar", "container-linux", "stable"], "flatcar-stable/4230.2.10"),
        (["fedora-coreos", "coreos", "stable"], "fedora-coreos-stable/44.20260817.2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_newest_image_of_each_publisher_comes_into_the_gallery(
    shop, image, state_dir, capsys, words, name
):
    assert _pull(*words, "--publish", "-o", "json") == 0
    told = _json(capsys)
    assert (told["name"], told["isNew"], told["published"]) == (name, True, True)
    assert told["digest"] == sha256(image)  # unpacked, unchanged
    assert main(["image", "show", name, "-o", "json"]) == 0
    shown = _json(capsys)
    assert shown["source"].startswith("https://")
    assert ("sha256:" in shown["source"]) or ("sha512:" in shown["source"])
    assert shown["buildId"] == told["build"]
    database = Database(state_dir / "labctl.db")
    with closing(database), database.read() as connection:
        found = find_definition(connection, name.split("/")[0])
    system = words[0] if words[0] in {"flatcar", "fedora-coreos"} else "linux"
    assert found.os_type is OsType(system)
    assert _pull(*words) == 0  # once more, of the gallery's own file
    assert _downloads(state_dir) == []


def test_pulling_again_downloads_nothing_and_changes_nothing(shop, capsys):
    assert _pull(*UBUNTU) == 0
    assert "not offered as latest yet" in capsys.readouterr().out
    shop.asked.clear()
    assert _pull(*UBUNTU) == 0
    assert "nothing was downloaded" in capsys.readouterr().out
    assert shop.asked == []
    assert _pull(*UBUNTU, "--publish") == 0
    assert _gallery(capsys) == [("ubuntu-24-04/24.4.2026090500", True)]


def test_a_version_can_be_named_by_number_or_by_build(shop, capsys):
    assert _pull(*UBUNTU, "--version", "20260826.1", "--definition", "noble") == 0
    assert _pull(*UBUNTU, "--version", "24.4.2026082600", "--definition", "noble") == 0
    assert _gallery(capsys) == [("noble/24.4.2026082600", False), ("noble/24.4.2026082601", False)]
    assert _pull(*UBUNTU, "--version", "20260827") == ExitCode.NOT_FOUND
    assert "the newest: 24.4.2026090500" in capsys.readouterr().err


def test_what_happens_is_told_line_by_line(shop, capsys):
    _pull(*UBUNTU)
    lines = capsys.readouterr().out.splitlines()
    assert " ubuntu-24-04/24.4.2026090500 pull resolved to https://cloud-images.ub" in lines[0]
    assert any("the sha256 checksum is right" in line for line in lines)
    assert any("not verified: no key ring; put the publisher's keys into" in line for line in lines)
    assert lines[-2].startswith("ubuntu-24-04/24.4.2026090500: pulled, ")


def test_a_wrong_checksum_imports_nothing(shop, state_dir, capsys):
    path = "/ubuntu/releases/server/releases/noble/release-20260905"
    page = shop.pages[f"{path}/ubuntu-24.04-server-cloudimg-amd64.img"]
    page.body = page.body[:-1] + b"!"
    assert _pull(*UBUNTU) == ExitCode.REFUSED
    assert "does not have the checksum that the publisher tells" in capsys.readouterr().err
    assert _downloads(state_dir) == []
    assert _gallery(capsys) == []
    assert not list((state_dir / "images").glob("*.qcow2"))


def test_a_version_without_a_checksum_is_refused(shop, capsys):
    del shop.pages["/debian/images/cloud/bookworm/20261001-2600/SHA512SUMS"]
    assert _pull("debian", "genericcloud", "12") == ExitCode.REFUSED
    told = capsys.readouterr().err
    assert "publisher 'debian' tells no checksum of" in told
    assert "SHA512SUMS" in told
    assert not any(path.endswith(".qcow2") for path in shop.paths())


def test_an_image_that_names_another_file_of_this_host_is_refused(
    server, state_dir, monkeypatch, tmp_path, capsys
):
    base = tmp_path / "secret.qcow2"
    for words in (["-f", "qcow2", base, "4M"], ["-f", "qcow2", "-b", base, "-F", "qcow2"]):
        target = [] if words[-1] == "4M" else [tmp_path / "evil.qcow2"]
        subprocess.run(["qemu-img", "create", "-q", *words, *target], check=True)
    shelves.fill(server, (tmp_path / "evil.qcow2").read_bytes())
    shelves.set_mirrors(server, monkeypatch)
    assert _pull(*UBUNTU) == ExitCode.INVALID
    told = capsys.readouterr().err
    assert "'ubuntu-24.04-server-cloudimg-amd64.img' cannot be used: it needs a backing" in told
    assert _gallery(capsys) == []
    assert _downloads(state_dir) == []


def test_a_good_signature_is_verified_and_recorded(shop, image, keyring, signer, capsys):
    keyring("ubuntu")
    keyring("fedora")
    keyring("flatcar")
    place = "/ubuntu/releases/server/releases/noble/release-20260905"
    sums = shop.pages[f"{place}/SHA256SUMS"].body
    shop.put(f"{place}/SHA256SUMS.gpg", signer.detach(sums))
    path, text = shelves.fedora(shop, image)
    shop.put(path, signer.clearsign(text))
    path, packed = shelves.flatcar(shop, image)
    shop.put(f"{path}.sig", signer.detach(packed))
    for words in (UBUNTU, ["fedora", "cloud", "44"], ["flatcar", "container-linux", "stable"]):
        assert _pull(*words, "--require-signature") == 0
        told = capsys.readouterr().out
        assert "the signature is good: Publisher <images@publisher.test>" in told
    assert main(["image", "show", "flatcar-stable/4230.2.10", "-o", "json"]) == 0
    assert " signed by " in _json(capsys)["source"]


def test_a_bad_signature_imports_nothing(shop, image, keyring, stranger, state_dir, capsys):
    keyring("ubuntu")
    keyring("flatcar")
    place = "/ubuntu/releases/server/releases/noble/release-20260905"
    shop.put(f"{place}/SHA256SUMS.gpg", stranger.detach(shop.pages[f"{place}/SHA256SUMS"].body))
    assert _pull(*UBUNTU) == ExitCode.REFUSED
    assert "SHA256SUMS.gpg' is not good" in capsys.readouterr().err
    assert not any(path.endswith(".img") for path in shop.paths())
    path, packed = shelves.flatcar(shop, image)
    shop.put(f"{path}.sig", stranger.detach(packed))
    assert _pull("flatcar", "container-linux", "stable") == ExitCode.REFUSED
    assert _gallery(capsys) == []
    assert _downloads(state_dir) == []


def test_a_signed_list_with_another_checksum_is_refused(shop, keyring, signer, capsys):
    keyring("ubuntu")
    place = "/ubuntu/releases/server/releases/noble/release-20260905"
    other = f"{'0' * 64} *ubuntu-24.04-server-cloudimg-amd64.img\n"
    shop.put(f"{place}/SHA256SUMS", other)
    shop.put(f"{place}/SHA256SUMS.gpg", signer.detach(other.encode()))
    assert _pull(*UBUNTU) == ExitCode.REFUSED
    assert "the signed list does not have the checksum" in capsys.readouterr().err


def test_a_missing_signature_is_refused_once_there_is_a_key_ring(shop, keyring, capsys):
    keyring("ubuntu")
    assert _pull(*UBUNTU) == ExitCode.REFUSED
    assert "the signature of publisher 'ubuntu' is missing" in capsys.readouterr().err
    assert _gallery(capsys) == []


def test_a_required_signature_needs_a_key_ring_and_a_publisher_that_signs(shop, capsys):
    assert _pull(*UBUNTU, "--require-signature") == ExitCode.REFUSED
    told = capsys.readouterr().err
    assert "there is no key ring for publisher 'ubuntu'" in told
    assert "LABCTL_KEYRINGS" in told
    assert _pull("debian", "genericcloud", "12", "--require-signature") == ExitCode.REFUSED
    assert "publisher 'debian' does not sign" in capsys.readouterr().err
    assert _pull(*UBUNTU) == 0
    assert _pull(*UBUNTU, "--require-signature") == ExitCode.REFUSED
    assert "was pulled without a signature" in capsys.readouterr().err


def test_a_version_that_the_publisher_replaced_is_refused(shop, capsys):
    assert _pull(*UBUNTU) == 0
    path = "/ubuntu/releases/streams/v1/com.ubuntu.cloud:released:download.json"
    body = shop.pages[path].body.replace(sha256(shop.pages[_image_path()].body).encode(), b"7" * 64)
    shop.put(path, body)
    assert _pull(*UBUNTU, "--refresh") == ExitCode.REFUSED
    assert "exists and came from elsewhere" in capsys.readouterr().err


def _image_path():
    place = "/ubuntu/releases/server/releases/noble/release-20260905"
    return f"{place}/ubuntu-24.04-server-cloudimg-amd64.img"


def test_a_publisher_that_is_down_is_named_and_what_is_pulled_stays(shop, capsys):
    assert main(["image", "versions", *UBUNTU]) == 0
    assert _pull(*UBUNTU) == 0
    shop.is_down = True
    capsys.readouterr()
    assert main(["image", "versions", *UBUNTU, "--refresh", "--top", "1"]) == 0
    told = capsys.readouterr()
    assert "24.4.2026082600" in told.out
    assert "publisher 'ubuntu' has trouble" in told.err
    assert "the index of 20" in told.err
    assert _pull(*UBUNTU, "--refresh") == 0
    assert _pull(*UBUNTU, "--version", "20260826") == ExitCode.FAILED
    assert "publisher 'ubuntu' does not answer" in capsys.readouterr().err
    assert main(["image", "versions", "debian", "genericcloud", "12"]) == ExitCode.FAILED
    assert "publisher 'debian' has trouble" in capsys.readouterr().err
    assert _gallery(capsys) == [("ubuntu-24-04/24.4.2026090500", False)]


def test_versions_are_ordered_as_numbers_and_cut_to_the_first(shop, capsys):
    words = ["image", "versions", "rocky", "genericcloud-base", "9", "-o", "json"]
    assert main([*words, "--top", "2", "--orderby", "name desc"]) == 0
    assert [row["name"] for row in _json(capsys)] == ["9.10.2026090100", "9.8.2026052500"]
    assert main(words) == 0
    assert _json(capsys)[0]["name"] == "9.0.2022070600"
    assert main([*words, "--orderby", "build desc", "--top", "1"]) == 0
    assert _json(capsys)[0]["build"] == "9.10-20260901.0"
    assert main([*words, "--orderby", "age"]) == ExitCode.INVALID
    assert main(["image", "versions", *UBUNTU, "--orderby", "name desc"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["NAME", "BUILD", "MIB", "CHECKSUM", "URL"]
    assert table[1].split()[:2] == ["24.4.2026090500", "20260905"]


def test_publishers_offers_and_skus_are_listed(shop, keyring, capsys):
    ring = keyring("flatcar")
    assert main(["image", "publishers", "-o", "json"]) == 0
    rows = {row["name"]: row for row in _json(capsys)}
    assert len(rows) == 8
    assert rows["flatcar"]["keyring"] == [str(ring)]
    assert rows["ubuntu"]["mirror"] == f"{shop.url}/ubuntu"
    assert rows["fedora-coreos"]["mirrorVariable"] == "LABCTL_MIRROR_FEDORA_COREOS"
    assert main(["image", "offers", "centos", "-o", "json"]) == 0
    assert [row["name"] for row in _json(capsys)] == ["stream", "linux"]
    assert main(["image", "skus", "ubuntu", "server", "-o", "json"]) == 0
    assert _json(capsys)[-1] == {
        "name": "24.04",
        "title": "Ubuntu 24.04 LTS",
        "definition": "ubuntu-24-04",
    }
    assert main(["image", "skus"]) == ExitCode.INVALID


def test_the_table_of_the_page_has_every_row_of_it(capsys):
    assert main(["image", "skus", "--page-table", "-o", "json"]) == 0
    rows = _json(capsys)
    assert len(rows) == 12
    assert {row["sku"] for row in rows} >= {"16.04-LTS", "18.04-LTS", "7.5", "Stable"}
    assert sum(row["publisher"] == "Microsoft Corporation" for row in rows) == 8
    assert all(row["labctl"] and row["verified"] for row in rows)


def test_a_listing_with_names_that_lead_out_of_their_folder_offers_none_of_them(shop, capsys):
    evil = "Rocky-9-GenericCloud-Base-9.9-20260801.0.x86_64.qcow2"
    page = listing("CHECKSUM", f"..%2f..%2f{evil}", f"../../{evil}", f"/etc/{evil}")
    shop.put("/rocky/pub/rocky/9/images/x86_64/", page)
    assert main(["image", "versions", "rocky", "genericcloud-base", "9", "-o", "json"]) == 0
    assert [row["name"] for row in _json(capsys)] == ["9.0.2022070600"]


def test_a_name_that_is_none_is_refused_before_anything_is_asked(shop):
    assert _pull(*UBUNTU, "--definition", "../x") == ExitCode.INVALID
    assert shop.asked == []


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=["killed", "ctrl-c"])
def test_a_pull_that_ends_in_mid_download_goes_on_the_next_time(
    shop, image, state_dir, capsys, end
):
    page = shop.pages[_image_path()]
    page.hold_after = len(image) // 2
    command = [sys.executable, "-m", "labctl", "image", "pull", *UBUNTU]
    child = subprocess.Popen(
        command,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert shop.held.wait(60)
    part = _wait_for_bytes(state_dir, child)
    child.send_signal(end)
    _, told = child.communicate(timeout=60)
    assert child.returncode == (-9 if end is signal.SIGKILL else ExitCode.INTERRUPTED)
    if end is signal.SIGINT:
        assert b"run the same command again to continue" in told
    shop.release.set()
    page.hold_after = None
    have = part.stat().st_size
    assert 0 < have < len(image)
    assert _gallery(capsys) == []
    assert _pull(*UBUNTU) == 0
    assert "goes on after" in capsys.readouterr().out
    assert shop.asked[-1][1]["Range"] == f"bytes={have}-"
    assert _downloads(state_dir) == []
    assert _gallery(capsys) == [("ubuntu-24-04/24.4.2026090500", False)]


def _wait_for_bytes(state_dir, child):
    """The part gets its bytes when the buffer is written; ask until they are there."""
    end = time.monotonic() + 60
    while time.monotonic() < end and child.poll() is None:
        for path in (state_dir / "cache" / "publishers" / "downloads").glob("*.part"):
            if path.stat().st_size:
                return path
        time.sleep(0.05)
    pytest.fail(f"nothing was written: {child.poll()}")
