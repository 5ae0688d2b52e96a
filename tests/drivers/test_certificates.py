"""The CA and the server's certificate: made once, renewed in time, refused when broken."""

import stat
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from labctl.drivers.certificates import check_host, ensure_identity, has_authority, load_identity
from labctl.errors import HostError, InvalidError
from labctl.settings import Settings

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def settings(tmp_path):
    return Settings(state_dir=tmp_path / "state", uri="test:///default")


def ensure(settings, *hosts, now=NOW, host_name="lab7"):
    return ensure_identity(settings, hosts, host_name=host_name, now=now)


def read(settings):
    """Everything that is there, by name."""
    return {path.name: path.read_bytes() for path in settings.api_dir.iterdir()}


def names(identity):
    shown = x509.load_pem_x509_certificate(identity.certificate.read_bytes())
    return {
        str(each.value)
        for each in shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    }


def test_only_the_certificate_of_the_ca_is_for_others_to_read(settings):
    assert not has_authority(settings)
    ensure(settings)
    assert has_authority(settings)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in settings.api_dir.iterdir()}
    assert modes == {"ca.pem": 0o644, "ca.key": 0o600, "server.pem": 0o600, "lock": 0o600}
    assert stat.S_IMODE(settings.api_dir.stat().st_mode) == 0o711


def test_the_second_time_nothing_changes(settings):
    ensure(settings, "lab.example.org")
    before = read(settings)
    ensure(settings, "lab.example.org", now=NOW + 300 * DAY)
    assert read(settings) == before


def test_a_certificate_is_for_loopback_this_machine_and_what_was_named(settings):
    identity = ensure(settings, "lab.example.org", "192.0.2.7", host_name="Lab7")
    assert names(identity) == {
        *("localhost", "127.0.0.1", "::1"),
        *("lab7", "lab.example.org", "192.0.2.7"),
    }
    odd = ensure(settings, host_name="no host name!")
    assert names(odd) == {"localhost", "127.0.0.1", "::1"}


@pytest.mark.parametrize(
    ("later", "is_renewed"),
    [(334 * DAY, False), (336 * DAY, True), (400 * DAY, True), (-10 * DAY, True)],
)
def test_a_certificate_is_renewed_by_the_same_ca_when_its_time_is_nearly_over(
    settings, later, is_renewed
):
    first = ensure(settings)
    before = read(settings)
    second = ensure(settings, now=NOW + later)
    after = read(settings)
    assert (after["server.pem"] != before["server.pem"]) is is_renewed
    assert after["ca.pem"] == before["ca.pem"]
    assert (second.expires_at != first.expires_at) is is_renewed


def test_the_last_certificate_of_a_ca_is_not_made_again_each_time(settings):
    ensure(settings)
    late = NOW + 3640 * DAY
    ends = ensure(settings, now=late).expires_at
    before = read(settings)
    ensure(settings, now=late)
    assert read(settings) == before
    with pytest.raises(HostError, match="ended at"):
        ensure(settings, now=ends + DAY)


@pytest.mark.parametrize("content", [b"", b"half a file", None])
def test_a_broken_certificate_of_the_server_is_made_anew(settings, content):
    ensure(settings)
    path = settings.api_dir / "server.pem"
    path.write_bytes(path.read_bytes()[:300] if content is None else content)
    ensure(settings)
    load_identity(path, path, now=NOW)


def test_a_certificate_of_another_ca_is_made_anew(settings, tmp_path):
    ensure(settings)
    other = Settings(state_dir=tmp_path / "other", uri="")
    foreign = ensure(other).certificate.read_bytes()
    path = settings.api_dir / "server.pem"
    path.write_bytes(foreign)
    ensure(settings)
    assert path.read_bytes() != foreign


def test_a_crash_between_the_key_and_the_certificate_of_the_ca_costs_nothing(settings):
    ensure(settings)
    key = (settings.api_dir / "ca.key").read_bytes()
    settings.ca_certificate.unlink()
    ensure(settings)
    assert (settings.api_dir / "ca.key").read_bytes() == key
    assert has_authority(settings)


@pytest.mark.parametrize("content", [None, b"no key"])
def test_a_ca_that_clients_trust_is_never_replaced_by_itself(settings, content):
    ensure(settings)
    before, key = settings.ca_certificate.read_bytes(), settings.api_dir / "ca.key"
    key.unlink()
    if content is not None:
        key.write_bytes(content)
    with pytest.raises(HostError, match="CA") as caught:
        ensure(settings)
    assert "labctl serve --init" in caught.value.hint
    assert settings.ca_certificate.read_bytes() == before


def test_a_ca_with_the_key_of_another_is_refused(settings, tmp_path):
    ensure(settings)
    other = Settings(state_dir=tmp_path / "other", uri="")
    ensure(other)
    (settings.api_dir / "ca.key").write_bytes((other.api_dir / "ca.key").read_bytes())
    with pytest.raises(HostError, match="do not fit together"):
        ensure(settings)


def test_a_directory_that_cannot_be_written_is_told(settings):
    settings.state_dir.mkdir()
    settings.api_dir.write_text("a file")
    with pytest.raises(HostError, match="cannot be read or written"):
        ensure(settings)


def test_files_of_the_user_are_checked(settings, tmp_path):
    ours = ensure(settings).certificate
    assert load_identity(ours, ours, now=NOW).expires_at == NOW + 365 * DAY
    stranger = ensure(Settings(state_dir=tmp_path / "other", uri="")).certificate
    text = tmp_path / "text"
    text.write_text("hello")
    for certificate, key, moment, said in (
        (ours, stranger, NOW, "is not that of the certificate"),
        (ours, ours, NOW + 366 * DAY, "is not valid now"),
        (ours, ours, NOW - DAY, "is not valid now"),
        (text, ours, NOW, "is no certificate"),
        (ours, text, NOW, "is no private key"),
        (tmp_path / "none", ours, NOW, "cannot be read"),
        (ours, tmp_path, NOW, "cannot be read"),
    ):
        with pytest.raises(InvalidError, match=said) as caught:
            load_identity(certificate, key, now=moment)
        assert str(tmp_path) in caught.value.brief


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("Lab.Example.ORG", "lab.example.org"),
        ("a_b-c", "a_b-c"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:DB8::0:7", "2001:db8::7"),
    ],
)
def test_hosts_are_names_or_addresses(given, found):
    assert check_host(given) == found


@pytest.mark.parametrize(
    "given",
    ["", ".", "a..b", "-a", "a:8443", "[::1]", "a b", "*.lab", "1.2.3", "1.2.3.4.5", "a" * 64, "ä"],
)
def test_what_is_no_host_is_refused(given):
    with pytest.raises(InvalidError, match="neither a host name nor an address"):
        check_host(given)
