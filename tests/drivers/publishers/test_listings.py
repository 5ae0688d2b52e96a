import json

import pytest

from labctl.drivers.publishers.addresses import Mirror
from labctl.drivers.publishers.failure import PublisherError
from labctl.drivers.publishers.index import IndexReader
from labctl.drivers.publishers.registry import ADAPTERS, get_adapter
from labctl.drivers.publishers.transport import Transport
from labctl.errors import NotFoundError
from labctl.model.publisher import Algorithm, Architecture, Covers, find_newest
from tests.drivers.publishers import shelves
from tests.drivers.publishers.conftest import NOW
from tests.drivers.publishers.server import sha256, sha512

IMAGE = b"an image"


class Shop:
    def __init__(self, server, tmp_path):
        self._server, self._tmp_path = server, tmp_path
        self._open = []

    def index(self, publisher):
        adapter = get_adapter(publisher)
        transport = Transport(adapter.publisher, Mirror(url=f"{self._server.url}/{publisher}"))
        self._open.append(transport)
        return IndexReader(transport, self._tmp_path / publisher, now=NOW, refresh=True)

    def skus(self, publisher, offer):
        return {
            sku.name: sku.definition
            for sku in get_adapter(publisher).list_skus(self.index(publisher), offer)
        }

    def versions(self, publisher, offer, sku, architecture=Architecture.X86_64):
        adapter, index = get_adapter(publisher), self.index(publisher)
        return adapter.list_versions(index, adapter.get_sku(index, offer, sku), architecture)

    def checksum(self, publisher, version):
        found = get_adapter(publisher).find_checksum(self.index(publisher), version)
        return None if found is None else (found.algorithm, found.digest)

    def close(self):
        for transport in self._open:
            transport.close()


@pytest.fixture
def shop(server, tmp_path):
    shelves.fill(server, IMAGE)
    shop = Shop(server, tmp_path)
    yield shop
    shop.close()


def _names(versions):
    return [str(each.version) for each in versions]


def test_ubuntu_lists_dated_builds_of_the_streams(shop):
    assert shop.skus("ubuntu", "server") == {
        "16.04": "ubuntu-16-04",
        "18.04": "ubuntu-18-04",
        "24.04": "ubuntu-24-04",
    }
    assert shop.skus("ubuntu", "server-daily")["24.04"] == "ubuntu-24-04-daily"
    found = shop.versions("ubuntu", "server", "24.04")
    assert _names(found) == ["24.4.2026082600", "24.4.2026082601", "24.4.2026090500"]
    newest = find_newest(found)
    folder = "https://cloud-images.ubuntu.com/releases/server/releases/noble/release-20260905"
    assert newest.url == f"{folder}/ubuntu-24.04-server-cloudimg-amd64.img"
    assert (newest.build, newest.size) == ("20260905", len(IMAGE))
    assert str(newest.checksum) == f"sha256:{sha256(IMAGE)}"
    assert newest.signature.url == f"{folder}/SHA256SUMS.gpg"
    assert _names(shop.versions("ubuntu", "server", "16.04")) == ["16.4.2021092800"]
    assert _names(shop.versions("ubuntu", "server-daily", "18.04")) == ["18.4.2023060700"]
    assert shop.versions("ubuntu", "server", "24.04", Architecture.AARCH64) == ()


def test_debian_lists_its_folders_and_finds_the_checksum_in_each(shop):
    assert shop.skus("debian", "genericcloud") == {
        "12": "debian-12-genericcloud",
        "12-daily": "debian-12-genericcloud-daily",
        "13": "debian-13-genericcloud",
        "13-daily": "debian-13-genericcloud-daily",
    }
    found = shop.versions("debian", "genericcloud", "12")
    assert _names(found) == ["12.20250519.2117", "12.20260821.2577", "12.20261001.2600"]
    name = "debian-12-genericcloud-amd64-20261001-2600.qcow2"
    assert found[-1].url == f"https://cloud.debian.org/images/cloud/bookworm/20261001-2600/{name}"
    assert found[-1].signature is None
    assert shop.checksum("debian", found[-1]) == (Algorithm.SHA512, sha512(IMAGE))
    assert _names(shop.versions("debian", "genericcloud", "12-daily")) == ["12.20261101.2650"]


def test_fedora_lists_generic_images_of_releases_and_betas(shop):
    assert list(shop.skus("fedora", "cloud")) == ["40", "43", "44", "45-beta"]
    (found,) = shop.versions("fedora", "cloud", "44")
    assert (str(found.version), found.build, found.size) == ("44.1.7", "44-1.7", len(IMAGE))
    assert found.signature.covers is Covers.SUMS
    assert found.signature.url.endswith("/Fedora-Cloud-44-1.7-x86_64-CHECKSUM")
    assert _names(shop.versions("fedora", "cloud", "40")) == ["40.1.14"]
    assert _names(shop.versions("fedora", "cloud", "45-beta")) == ["45.1.3"]
    (other,) = shop.versions("fedora", "cloud", "44", Architecture.AARCH64)
    assert other.file_name == "Fedora-Cloud-Base-Generic-44-1.7.aarch64.qcow2"


def test_rocky_lists_the_present_folder_and_the_vault_by_number(shop):
    assert list(shop.skus("rocky", "genericcloud-base")) == ["8", "9", "10"]
    found = shop.versions("rocky", "genericcloud-base", "9")
    assert _names(found) == [
        "9.0.2022070600",
        "9.5.2024111800",
        "9.8.2026052500",
        "9.10.2026090100",
    ]
    assert found[0].url.startswith("https://dl.rockylinux.org/vault/rocky/9.0/images/x86_64/")
    # There is no CHECKSUM of the folder here, but one of each image.
    assert shop.checksum("rocky", found[-1]) == (Algorithm.SHA256, sha256(IMAGE))
    assert shop.checksum("rocky", found[0]) is None
    assert _names(shop.versions("rocky", "genericcloud-lvm", "9")) == ["9.8.2026052500"]


def test_almalinux_lists_the_present_folder_and_the_vault(shop):
    assert list(shop.skus("almalinux", "genericcloud")) == ["8", "9", "10"]
    found = shop.versions("almalinux", "genericcloud", "9")
    assert _names(found) == ["9.0.2022052700", "9.4.2024080500", "9.6.2025052200"]
    assert shop.checksum("almalinux", found[-1]) == (Algorithm.SHA256, sha256(IMAGE))
    assert found[-1].signature.url.endswith("/9/cloud/x86_64/images/CHECKSUM.asc")
    assert _names(shop.versions("almalinux", "genericcloud", "10")) == ["10.0.2025052800"]


def test_centos_lists_stream_and_the_point_releases_of_7(shop):
    assert list(shop.skus("centos", "stream")) == ["8", "9", "10"]
    found = shop.versions("centos", "stream", "9")
    assert _names(found) == ["9.0.2024010100", "9.0.2026052600"]
    assert shop.checksum("centos", found[-1]) == (Algorithm.SHA256, sha256(IMAGE))
    assert shop.checksum("centos", found[0]) is None
    assert _names(shop.versions("centos", "stream", "10")) == ["10.0.2025120100"]
    assert shop.skus("centos", "linux") == {
        "7.1": "centos-7-1",
        "7.5": "centos-7-5",
        "7.6": "centos-7-6",
        "7.9": "centos-7-9",
    }
    old = shop.versions("centos", "linux", "7.5")
    assert _names(old) == ["7.5.180402", "7.5.180500", "7.5.180900"]
    assert old[0].file_name == "CentOS-7-x86_64-GenericCloud-1804_02.qcow2"
    assert shop.checksum("centos", old[0]) == (Algorithm.SHA256, sha256(IMAGE))
    assert old[0].signature.url.endswith("/sha256sum.txt.asc")


def test_flatcar_lists_versions_of_a_channel_but_not_current(shop):
    assert list(shop.skus("flatcar", "container-linux")) == ["stable", "beta", "alpha", "lts"]
    found = shop.versions("flatcar", "container-linux", "stable")
    assert _names(found) == ["4081.2.1", "4230.2.3", "4230.2.10"]
    assert found[-1].url == (
        "https://stable.release.flatcar-linux.net/amd64-usr/4230.2.10/"
        "flatcar_production_qemu_image.img.bz2"
    )
    assert found[-1].signature.covers is Covers.IMAGE
    assert shop.checksum("flatcar", found[-1])[0] is Algorithm.SHA512
    arm = shop.versions("flatcar", "container-linux", "stable", Architecture.AARCH64)
    assert _names(arm) == ["4081.2.1", "4230.2.10"]


def test_fedora_coreos_lists_the_builds_of_a_stream(shop):
    assert list(shop.skus("fedora-coreos", "coreos")) == ["stable", "testing", "next"]
    found = shop.versions("fedora-coreos", "coreos", "stable")
    assert _names(found) == [
        "43.20260401.0",
        "43.20260401.1",
        "44.20260817.0",
        "44.20260817.2",
    ]
    assert found[-1].checksum is not None
    assert found[0].checksum is None
    assert shop.checksum("fedora-coreos", found[0])[0] is Algorithm.SHA256
    assert found[0].url.endswith("fedora-coreos-43.20260401.3.0-qemu.x86_64.qcow2.xz")


def test_no_publisher_lists_an_alias_that_moves(shop):
    asked = [
        ("ubuntu", "server", "24.04"),
        ("debian", "genericcloud", "12"),
        ("fedora", "cloud", "44"),
        ("rocky", "genericcloud-base", "9"),
        ("almalinux", "genericcloud", "9"),
        ("centos", "stream", "9"),
        ("centos", "linux", "7.5"),
        ("flatcar", "container-linux", "stable"),
        ("fedora-coreos", "coreos", "stable"),
    ]
    assert {publisher for publisher, _, _ in asked} == {each.publisher.name for each in ADAPTERS}
    for publisher, offer, sku in asked:
        for version in shop.versions(publisher, offer, sku):
            assert "latest" not in version.url
            assert "current" not in version.url
            assert version.checksum or version.sums_urls


def test_what_is_not_there_is_told_with_what_is(shop):
    with pytest.raises(NotFoundError, match="publisher 'suse' is not known") as caught:
        shop.versions("suse", "x", "y")
    assert "ubuntu, debian" in caught.value.detail
    with pytest.raises(NotFoundError, match="'ubuntu' has no offer 'desktop'"):
        shop.versions("ubuntu", "desktop", "24.04")
    with pytest.raises(NotFoundError) as caught:
        shop.versions("ubuntu", "server", "24.10")
    assert caught.value.detail == "there are: 16.04, 18.04, 24.04"


UBUNTU_INDEX = "/ubuntu/releases/streams/v1/com.ubuntu.cloud:released:download.json"


@pytest.mark.parametrize(
    "path",
    [
        "../../../etc/passwd",
        "/etc/passwd",
        "https://evil.test/x.img",
        "server/%2e%2e/%2e%2e/%2e%2e/x",
    ],
)
def test_a_path_in_an_index_that_leads_elsewhere_is_refused(shop, server, path):
    index = json.loads(server.pages[UBUNTU_INDEX].body)
    product = index["products"]["com.ubuntu.cloud:server:24.04:amd64"]
    product["versions"]["20260905"]["items"]["disk1.img"]["path"] = path
    server.put(UBUNTU_INDEX, json.dumps(index))
    with pytest.raises(PublisherError, match="cannot be understood") as caught:
        shop.versions("ubuntu", "server", "24.04")
    assert repr(path) in caught.value.detail


@pytest.mark.parametrize(
    ("publisher", "path", "body", "ask"),
    [
        ("ubuntu", UBUNTU_INDEX, "[]", ("server", "24.04")),
        ("ubuntu", UBUNTU_INDEX, '{"products": {"x": {"os": "ubuntu"}}}', ("server", "24.04")),
        ("fedora", "/fedora/releases.json", "{}", ("cloud", "44")),
        ("fedora", "/fedora/releases.json", "no", ("cloud", "44")),
        (
            "flatcar",
            "/flatcar/releases-json/releases-stable.json",
            '{"1.2.3": {}}',
            ("container-linux", "stable"),
        ),
        (
            "fedora-coreos",
            "/fedora-coreos/prod/streams/stable/releases.json",
            '{"releases": [{"version": 44}]}',
            ("coreos", "stable"),
        ),
        ("debian", "/debian/images/cloud/", "<html></html>", ("genericcloud", "12")),
        ("rocky", "/rocky/pub/rocky/", "maintenance", ("genericcloud-base", "9")),
        ("centos", "/centos/centos/", "", ("stream", "9")),
        ("almalinux", "/almalinux/almalinux/", "<a href='/'>x</a>", ("genericcloud", "9")),
    ],
)
def test_an_index_of_another_shape_names_publisher_and_address(
    shop, server, publisher, path, body, ask
):
    server.put(path, body)
    with pytest.raises(PublisherError, match="cannot be understood") as caught:
        shop.versions(publisher, *ask)
    assert repr(publisher) in caught.value.brief
    assert path.removeprefix(f"/{publisher}") in caught.value.detail


def test_fedora_cannot_send_us_to_another_host(shop, server):
    index = json.loads(server.pages["/fedora/releases.json"].body)
    for entry in index:
        entry["link"] = entry["link"].replace("download.fedoraproject.org", "evil.test")
    server.put("/fedora/releases.json", json.dumps(index))
    (found,) = shop.versions("fedora", "cloud", "44")
    reader = shop.index("fedora")
    with pytest.raises(PublisherError, match="not its own"):
        reader.content(found.url)
