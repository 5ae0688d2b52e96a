import pytest

from labctl.drivers.publishers.addresses import Mirror, is_allowed, join, locate
from labctl.drivers.publishers.failure import PublisherError
from labctl.errors import InvalidError
from labctl.model.publisher import Publisher

UBUNTU = Publisher(name="ubuntu", title="", hosts=("cloud-images.ubuntu.com",), signs="")


def _mirror(url):
    return Mirror.from_environment("fedora-coreos", {"LABCTL_MIRROR_FEDORA_COREOS": url})


def test_a_mirror_stands_in_for_scheme_and_host():
    mirror = _mirror("https://mirror.test/images/")
    assert locate(UBUNTU, mirror, "https://cloud-images.ubuntu.com/releases/x") == (
        "https://mirror.test/images/releases/x"
    )
    assert locate(UBUNTU, None, "https://cloud-images.ubuntu.com/x").endswith("ubuntu.com/x")
    assert _mirror("") is None


@pytest.mark.parametrize(
    "url", ["http://mirror.test/x", "ftp://mirror.test", "mirror.test/x", "file:///etc", "http://"]
)
def test_a_mirror_is_https_or_on_this_host(url):
    with pytest.raises(InvalidError, match="LABCTL_MIRROR_FEDORA_COREOS"):
        _mirror(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.test/x",
        "http://cloud-images.ubuntu.com/x",
        "https://cloud-images.ubuntu.com:8443/x",
        "https://cloud-images.ubuntu.com@evil.test/x",
        "file:///etc/passwd",
    ],
)
def test_an_index_cannot_name_another_host(url):
    with pytest.raises(PublisherError, match="not its own"):
        locate(UBUNTU, None, url)


def test_only_https_is_followed_and_http_only_to_the_mirror_on_this_host():
    local = _mirror("http://127.0.0.1:8000/x")
    assert is_allowed("https://any.test/x", None)
    assert is_allowed("http://127.0.0.1:8000/y", local)
    assert not is_allowed("http://127.0.0.1:22/y", local)
    assert not is_allowed("http://127.0.0.1:8000/y", _mirror("https://mirror.test"))
    assert not is_allowed("http://any.test/x", None)
    assert not is_allowed("file:///etc/passwd", local)


def test_a_path_of_an_index_stays_below_its_folder():
    assert join("ubuntu", "https://x/releases", "server/a.img") == "https://x/releases/server/a.img"


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd",
        "a/../../b",
        "/etc/passwd",
        "//evil.test/x",
        "https://evil.test/x",
        "a\\b",
        "a%2f..%2f..%2fb",
        "a//b",
        "a?x=1",
        "a\nb",
        "",
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(path):
    with pytest.raises(PublisherError, match="cannot be understood"):
        join("ubuntu", "https://x/releases", path)
