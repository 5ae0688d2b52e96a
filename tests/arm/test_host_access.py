import pytest

from labctl.arm.host_access import find_host_access
from labctl.model.spec import ScaleSetSpec

SPEC = {"name": "web", "capacity": 0, "image": {"definition": "tiny"}}
OWN = [
    "https://127.1/",
    "https://0x7f.1/",
    "https://2130706433/",
    "https://0177.0.0.1/",
    "https://0/",
    "https://127.0.0.1./",
    "https://LOCALHOST./",
    "https://x.localhost/",
    "https://ip6-localhost/",
    "https://localhost.localdomain/",
    "https://[::1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:a9fe:a9fe]/",
    "https://[::127.0.0.1]/",
    "https://[fe80::1]/",
    "https://169.254.169.254/",
]


def _find(url: str) -> tuple[str, ...]:
    spec = ScaleSetSpec.model_validate(
        {**SPEC, "notifications": [{"name": "chat", "url": url}]}, by_alias=True, by_name=False
    )
    return find_host_access(spec, None, {})


@pytest.mark.parametrize("url", OWN)
def test_the_host_itself_is_found_however_its_address_is_written(url):
    assert _find(url) == ("properties.labctl.notifications[0].url",)


@pytest.mark.parametrize("url", ["https://192.0.2.7/", "https://lab.example/", "https://10.1/"])
def test_other_hosts_are_not_the_host_itself(url):
    assert _find(url) == ()
