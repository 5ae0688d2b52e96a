import pytest

from labctl.drivers.publishers.failure import UntrustedError
from labctl.drivers.publishers.signature import (
    Keyring,
    find_keyring,
    keyrings_dir,
    strip_signature,
    verify_detached,
    verify_sums,
)
from labctl.errors import InvalidError
from tests.drivers.publishers.signer import Signer

SUMS = "SHA256 (x.qcow2) = " + "a" * 64 + "\n- a line with a dash\n"


@pytest.fixture
def keyring(tmp_path, signer):
    path = tmp_path / "ubuntu.gpg"
    path.write_bytes(signer.export())
    return Keyring(publisher="ubuntu", files=(path,))


@pytest.fixture
def armored(tmp_path, signer):
    path = tmp_path / "ubuntu.asc"
    path.write_bytes(signer.export(armor=True))
    return Keyring(publisher="ubuntu", files=(path,))


@pytest.mark.parametrize("armor", [False, True])
def test_a_detached_signature_of_sums_is_good(keyring, signer, armor):
    found = verify_sums(
        keyring, signer.detach(SUMS.encode(), armor=armor), SUMS.encode(), name="SHA256SUMS.gpg"
    )
    assert found.signer == "Publisher <images@publisher.test>"
    assert len(found.fingerprint) == 40
    assert found.content == SUMS.encode()


def test_key_rings_may_be_armored(armored, signer):
    assert verify_sums(armored, signer.detach(b"x"), b"x", name="x").fingerprint


def test_a_clearsigned_list_gives_what_is_signed_and_nothing_around_it(keyring, signer):
    signed = signer.clearsign(SUMS)
    around = b"SHA256 (x.qcow2) = evil\n"
    assert verify_sums(keyring, signed, b"", name="x").content.decode() == SUMS
    assert b"evil" not in verify_sums(keyring, signed + around, b"", name="x").content
    assert strip_signature(signed.decode()).splitlines() == SUMS.splitlines()
    assert strip_signature(SUMS) == SUMS


def test_a_signature_over_an_image_is_checked_on_the_file(keyring, signer, tmp_path):
    image = tmp_path / "image"
    image.write_bytes(b"image" * 1000)
    signature = signer.detach(image.read_bytes())
    assert verify_detached(keyring, signature, image, name="x.sig").fingerprint
    image.write_bytes(b"other")
    with pytest.raises(UntrustedError, match=r"'x\.sig' is not good") as caught:
        verify_detached(keyring, signature, image, name="x.sig")
    assert "does not belong to this content" in caught.value.detail


def test_a_changed_list_is_refused(keyring, signer):
    changed = signer.clearsign(SUMS).replace(b"a" * 64, b"b" * 64)
    with pytest.raises(UntrustedError, match="not good"):
        verify_sums(keyring, changed, b"", name="CHECKSUM")


def test_the_key_of_a_stranger_is_refused(keyring, stranger):
    with pytest.raises(UntrustedError) as caught:
        verify_sums(keyring, stranger.detach(b"x"), b"x", name="x")
    assert "a key that is not in the key ring" in caught.value.detail


def test_what_is_no_signature_is_refused(keyring):
    with pytest.raises(UntrustedError):
        verify_sums(keyring, b"<html>404</html>", b"x", name="x")


def test_one_known_key_of_two_that_signed_is_enough(keyring, signer, stranger):
    both = stranger.detach(b"x") + signer.detach(b"x")
    assert verify_sums(keyring, both, b"x", name="x").fingerprint


@pytest.mark.parametrize("order", [(b"x", b"y"), (b"y", b"x")], ids=["last", "first"])
def test_a_signature_over_something_else_beside_a_good_one_is_refused(keyring, signer, order):
    both = b"".join(signer.detach(content) for content in order)
    with pytest.raises(UntrustedError) as caught:
        verify_sums(keyring, both, b"x", name="x")
    assert "does not belong to this content" in caught.value.detail


def test_a_key_that_has_expired_is_refused(tmp_path):
    signer = Signer("Old <old@publisher.test>", expired=True)
    try:
        path = tmp_path / "ubuntu.gpg"
        path.write_bytes(signer.export())
        signature = signer.detach(b"x")
    finally:
        signer.close()
    with pytest.raises(UntrustedError) as caught:
        verify_sums(Keyring(publisher="ubuntu", files=(path,)), signature, b"x", name="x")
    assert "the key has expired" in caught.value.detail


def test_key_rings_are_found_by_publisher(tmp_path, signer, settings):
    folder = tmp_path / "rings"
    (folder / "rocky").mkdir(parents=True)
    assert find_keyring(folder, "rocky") is None
    for name in ("rocky.gpg", "rocky/nine.asc", "rocky/notes.txt", "fedora.gpg"):
        (folder / name).write_bytes(signer.export())
    assert find_keyring(folder, "rocky").files == (
        folder / "rocky" / "nine.asc",
        folder / "rocky.gpg",
    )
    assert keyrings_dir(settings, {}) == settings.state_dir / "keyrings"
    assert keyrings_dir(settings, {"LABCTL_KEYRINGS": str(folder)}) == folder


def test_a_file_that_is_no_key_ring_says_so(tmp_path, signer):
    path = tmp_path / "ubuntu.asc"
    path.write_bytes(signer.detach(b"x", armor=True))
    with pytest.raises(InvalidError, match="not a file of OpenPGP public keys"):
        verify_sums(Keyring(publisher="u", files=(path,)), signer.detach(b"x"), b"x", name="x")
