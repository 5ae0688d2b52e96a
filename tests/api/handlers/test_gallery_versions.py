import hashlib
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from labctl.controller import image_import
from labctl.controller.image_import import ImageImport, downloads_dir, ensure_import_dir
from labctl.controller.operations import Ending, Operations
from labctl.drivers.blobs import find_digests
from labctl.drivers.publishers.download import part_path
from labctl.model.access import Scope
from labctl.model.image import ImageVersion, find_latest
from labctl.store.arm_resources import find_resource, remove_resource
from labctl.store.gallery import find_definition, load_versions, remove_definition
from labctl.store.operations import load_open_operations
from tests.api.serving import SUBSCRIPTION, Api

GALLERY = "resourceGroups/labctl/providers/Microsoft.Compute/galleries/labctl"
TINY = f"{GALLERY}/images/tiny"
WHOLE_TINY = f"/subscriptions/{SUBSCRIPTION}/{TINY}"


@pytest.fixture
def image(api: Api) -> Path:
    """A real qcow2 file where files to import are put."""
    path = ensure_import_dir(api.desk.settings) / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "8M"], check=True)
    return path


def put_from(api: Api, uri: str, version: str = "2.0.0", **more: Any):
    publishing = more.pop("publishing", {})
    body = {
        "location": "local",
        "properties": {
            "publishingProfile": publishing,
            "storageProfile": {
                "osDiskImage": {"source": {"uri": uri, "storageAccountId": "/any/account"}}
            },
        },
    }
    return api.ask("PUT", f"{TINY}/versions/{version}", body=body, **more)


def work(api: Api) -> list[Any]:
    """Take every open operation one step further, as the daemon does."""
    desk = api.desk
    step = ImageImport(desk.settings, desk.database, desk.stop)
    operations = Operations(desk.database, desk.board, quick={}, slow={"image-import": step})
    with desk.database.read() as connection:
        found = load_open_operations(connection)
    return [operations.step_once(each) for each in found]


def load(api: Api, definition: str = "tiny") -> tuple[ImageVersion, ...]:
    with api.desk.database.read() as connection:
        return load_versions(connection, definition)


def latest(api: Api, region: str = "local") -> str:
    found = find_latest(load(api), region=region, now=datetime.now(UTC))
    return "" if found is None else str(found.version)


def state(answer: Any) -> str:
    return answer.json()["properties"]["provisioningState"]


def test_a_version_is_imported_from_a_file_and_published(api: Api, image: Path):
    begun = put_from(api, f"file://{image}", scope=Scope.OPERATE)
    assert (begun.status_code, state(begun)) == (201, "Creating")
    assert "Azure-AsyncOperation" in begun.headers
    assert state(api.ask("GET", f"{TINY}/versions/2.0.0")) == "Creating"
    assert latest(api) == "1.1.0"
    assert [ending.error for ending in work(api)] == [None]
    shown = api.ask("GET", f"{TINY}/versions/2.0.0", query={"$expand": "ReplicationStatus"}).json()
    assert shown["properties"]["provisioningState"] == "Succeeded"
    assert shown["properties"]["labctl"]["digest"] == hashlib.sha256(image.read_bytes()).hexdigest()
    assert shown["properties"]["publishingProfile"]["excludeFromLatest"] is False
    assert shown["properties"]["replicationStatus"]["aggregatedState"] == "Completed"
    assert latest(api) == "2.0.0"
    assert work(api) == []
    again = put_from(api, f"file://{image}")
    assert (again.status_code, state(again)) == (200, "Succeeded")
    assert "Azure-AsyncOperation" not in again.headers


def test_what_is_on_its_way_is_asked_for_once(api: Api, image: Path):
    first = put_from(api, str(image)).headers["Azure-AsyncOperation"]
    assert put_from(api, str(image)).headers["Azure-AsyncOperation"] == first
    other = put_from(api, f"{image}.other")
    assert (other.status_code, other.json()["error"]["code"]) == (409, "PropertyChangeNotAllowed")
    assert api.ask("DELETE", f"{TINY}/versions/2.0.0").status_code == 409
    patch = {"properties": {"publishingProfile": {"excludeFromLatest": True}}}
    assert state(api.ask("PATCH", f"{TINY}/versions/2.0.0", body=patch)) == "Creating"
    work(api)
    assert latest(api) == "1.1.0"
    assert str(load(api)[-1].version) == "2.0.0"


def test_an_import_that_was_killed_before_the_offer_goes_on(
    api: Api, image: Path, monkeypatch: pytest.MonkeyPatch
):
    put_from(api, str(image), publishing={"targetRegions": [{"name": "East US"}]})
    desk = api.desk
    with desk.database.read() as connection:
        [operation] = load_open_operations(connection)

    class KilledError(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise KilledError

    step = ImageImport(desk.settings, desk.database, desk.stop)
    with monkeypatch.context() as patch:
        patch.setattr(image_import, "offer_as_wished", die)
        with pytest.raises(KilledError):
            step(operation)
    assert state(api.ask("GET", f"{TINY}/versions/2.0.0")) == "Creating"
    assert latest(api, "eastus") == "1.1.0"
    image.unlink()  # not needed any more
    work(api)
    assert state(api.ask("GET", f"{TINY}/versions/2.0.0")) == "Succeeded"
    assert (latest(api, "eastus"), latest(api)) == ("2.0.0", "1.1.0")
    assert len(find_digests(desk.settings)) == 1


def test_an_import_that_fails_tells_why_and_can_be_asked_for_again(api: Api, image: Path):
    image.write_bytes(b"no image")
    begun = put_from(api, str(image))
    [ending] = work(api)
    assert "not a qcow2 image" in ending.error["message"]
    shown = api.ask("GET", f"{TINY}/versions/2.0.0").json()["properties"]
    assert shown["provisioningState"] == "Failed"
    assert "not a qcow2 image" in shown["labctl"]["error"]["message"]
    image.unlink()
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "8M"], check=True)
    again = put_from(api, str(image))
    assert (again.status_code, state(again)) == (200, "Creating")
    assert again.headers["Azure-AsyncOperation"] != begun.headers["Azure-AsyncOperation"]
    work(api)
    assert latest(api) == "2.0.0"


def test_a_failed_version_can_be_deleted(api: Api, image: Path):
    image.write_bytes(b"no image")
    put_from(api, str(image))
    work(api)
    assert api.ask("DELETE", f"{TINY}/versions/2.0.0").status_code == 200
    assert api.ask("GET", f"{TINY}/versions/2.0.0").status_code == 404
    assert api.ask("DELETE", f"{TINY}/versions/2.0.0").status_code == 204


def test_a_version_whose_wish_is_gone_is_not_left_behind(api: Api, image: Path):
    put_from(api, str(image))
    with api.desk.database.write() as connection:
        remove_resource(connection, f"{WHOLE_TINY}/versions/2.0.0")
    assert [ending.is_canceled for ending in work(api)] == [True]
    assert [str(each.version) for each in load(api)] == ["1.0.0", "1.1.0"]
    assert find_digests(api.desk.settings) == ()


def test_a_group_that_is_deleted_during_an_import_leaves_nothing(
    api: Api, image: Path, monkeypatch: pytest.MonkeyPatch
):
    at = "resourceGroups/rg1/providers/Microsoft.Compute/galleries/g"
    body: Any = {"location": "local"}
    for path in ("resourceGroups/rg1", at):
        assert api.ask("PUT", path, body=body).status_code == 201
    identifier = {"publisher": "a", "offer": "b", "sku": "c"}
    body["properties"] = {"osType": "Linux", "identifier": identifier}
    assert api.ask("PUT", f"{at}/images/web", body=body).status_code == 201
    body["properties"] = {"storageProfile": {"osDiskImage": {"source": {"uri": str(image)}}}}
    assert api.ask("PUT", f"{at}/images/web/versions/1.0.0", body=body).status_code == 201
    bring = image_import.import_image

    def delete_meanwhile(*arguments: Any, **more: Any) -> Any:
        with api.desk.database.write() as connection:
            remove_definition(connection, "web")
            remove_resource(connection, f"/subscriptions/{SUBSCRIPTION}/{at}")
        return bring(*arguments, **more)

    monkeypatch.setattr(image_import, "import_image", delete_meanwhile)
    assert [ending.is_canceled for ending in work(api)] == [True]
    with api.desk.database.read() as connection:
        assert find_definition(connection, "web") is None
    assert find_digests(api.desk.settings) == ()


def test_only_an_admin_may_import_other_files_of_the_host(api: Api, image: Path, tmp_path: Path):
    outside = tmp_path / "outside.qcow2"
    image.rename(outside)
    image.symlink_to(outside)
    for uri in (str(outside), f"file://{image}", f"file://{tmp_path}/none"):
        refused = put_from(api, uri, scope=Scope.OPERATE)
        assert (refused.status_code, refused.json()["error"]["code"]) == (
            403,
            "AuthorizationFailed",
        )
    assert put_from(api, str(outside), scope=Scope.ADMIN).status_code == 201
    assert [ending.error for ending in work(api)] == [None]


def test_only_an_admin_may_have_images_fetched_from_the_host_itself(api: Api):
    uri = f"https://127.1/disk.qcow2#sha256={'0' * 64}"
    refused = put_from(api, uri, scope=Scope.OPERATE)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "AuthorizationFailed")
    assert put_from(api, uri, scope=Scope.ADMIN).status_code == 201


def test_a_file_that_became_a_link_is_not_followed(api: Api, image: Path, tmp_path: Path):
    put_from(api, str(image), scope=Scope.OPERATE)
    image.rename(tmp_path / "outside.qcow2")
    image.symlink_to(tmp_path / "outside.qcow2")
    [ending] = work(api)
    assert "is not in" in ending.error["message"]


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A server on this host that stands in for every other."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    folder = tmp_path / "www"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setenv("LABCTL_MIRROR_IMPORT", f"http://127.0.0.1:{server.server_port}")
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("is_right", [True, False])
def test_what_is_downloaded_must_have_the_checksum(
    api: Api, image: Path, mirror: Path, is_right: bool
):
    digest = hashlib.sha256(image.read_bytes() if is_right else b"").hexdigest()
    image.rename(mirror / "disk.qcow2")
    put_from(api, f"https://images.example:8443/disk.qcow2?sig=secret#sha256={digest}")
    patch = {"properties": {"publishingProfile": {"replicaCount": 2}}}
    assert api.ask("PATCH", f"{TINY}/versions/2.0.0", body=patch).status_code == 200
    [ending] = work(api)
    shown = api.ask("GET", f"{TINY}/versions/2.0.0")
    assert "secret" not in shown.text
    if is_right:
        assert ending.error is None
        assert latest(api) == "2.0.0"
        assert "secret" not in load(api)[-1].source
    else:
        assert "checksum" in ending.error["message"]
        assert state(shown) == "Failed"
    assert not any(downloads_dir(api.desk.settings).iterdir())


def test_a_download_ends_before_the_disk_is_full(
    api: Api, image: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("labctl.controller.image_import._RESERVE", 2**60)
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    image.rename(mirror / "disk.qcow2")
    put_from(api, f"https://images.example/disk.qcow2#sha256={digest}")
    [ending] = work(api)
    assert "must stay free" in ending.error["message"]


def test_the_key_in_an_address_is_told_nobody_and_not_forgotten(api: Api, mirror: Path):
    uri = f"https://images.example/none.qcow2?sig=secret#sha256={'0' * 64}"
    begun = put_from(api, uri)
    assert "secret" not in begun.text
    assert api.ask("PUT", f"{TINY}/versions/2.0.0", body=begun.json()).status_code == 200
    [ending] = work(api)
    assert ending.error is not None
    assert "secret" not in str(ending.error)
    assert state(api.ask("PUT", f"{TINY}/versions/2.0.0", body=begun.json())) == "Creating"
    with api.desk.database.read() as connection:
        row = find_resource(connection, f"{WHOLE_TINY}/versions/2.0.0")
    assert row is not None
    source = row.document["properties"]["storageProfile"]["osDiskImage"]["source"]
    assert source["uri"] == uri


def test_an_import_that_was_killed_after_the_offer_has_succeeded(api: Api, image: Path):
    put_from(api, str(image))
    desk = api.desk
    with desk.database.read() as connection:
        [operation] = load_open_operations(connection)
    step = ImageImport(desk.settings, desk.database, desk.stop)
    assert step(operation) == step(operation) == Ending()


def test_a_download_goes_on_after_a_stop(api: Api, image: Path, mirror: Path):
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    image.rename(mirror / "disk.qcow2")
    put_from(api, f"https://images.example/disk.qcow2#sha256={digest}")
    api.desk.stop.set()
    assert work(api) == [None]
    assert state(api.ask("GET", f"{TINY}/versions/2.0.0")) == "Creating"
    api.desk.stop.clear()
    assert [ending.error for ending in work(api)] == [None]
    assert latest(api) == "2.0.0"


def test_what_has_come_of_a_file_goes_with_the_wish_for_it(api: Api, image: Path, mirror: Path):
    folder = downloads_dir(api.desk.settings)
    folder.mkdir(parents=True)
    uris = [f"https://images.example/{name}.qcow2" for name in ("gone", "wanted")]
    gone, wanted = (part_path(folder, uri) for uri in uris)
    for place, uri in enumerate(uris):
        put_from(api, f"{uri}#sha256={'0' * 64}", version=f"2.0.{place}")
        for suffix in (".part", ".json"):
            part_path(folder, uri).with_suffix(suffix).touch()
    with api.desk.database.write() as connection:  # with its group, for example
        remove_resource(connection, f"{WHOLE_TINY}/versions/2.0.0")
    image_import.forget_unwanted_downloads(api.desk.settings, api.desk.database)
    assert not gone.exists()
    assert wanted.exists()
    assert len(list(folder.iterdir())) == 2


STEP = """
import sys, threading
from pathlib import Path
from labctl.controller.image_import import ImageImport
from labctl.settings import Settings
from labctl.store.database import Database
from labctl.store.operations import load_open_operations

settings = Settings(state_dir=Path(sys.argv[1]), uri="test:///default")
database = Database(settings.database)
with database.read() as connection:
    [operation] = load_open_operations(connection)
ImageImport(settings, database, threading.Event())(operation)
"""


@pytest.mark.parametrize("place", ["import:fetched", "import:copied", "import:stored"])
def test_an_import_that_was_killed_goes_on_and_leaves_nothing(
    api: Api, image: Path, mirror: Path, place: str
):
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    image.rename(mirror / "disk.qcow2")
    put_from(api, f"https://images.example/disk.qcow2#sha256={digest}")
    settings = api.desk.settings
    root = Path(image_import.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "LABCTL_FAILPOINT": place}
    killed = subprocess.run(
        [sys.executable, "-c", STEP, settings.state_dir], env=environment, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert any(downloads_dir(settings).iterdir())
    assert latest(api) == "1.1.0"
    assert [ending.error for ending in work(api)] == [None]
    assert latest(api) == "2.0.0"
    assert not any(downloads_dir(settings).iterdir())
    assert [path.name for path in settings.blobs_dir.iterdir()] == [f"{digest}.qcow2"]


@pytest.mark.parametrize(
    ("storage", "code"),
    [
        ({}, "InvalidParameter"),
        ({"osDiskImage": {"source": {"uri": "https://images.example/a"}}}, "InvalidParameter"),
        ({"osDiskImage": {"source": {"uri": "http://images.example/a"}}}, "InvalidParameter"),
        ({"osDiskImage": {"source": {"uri": "https://u:p@x/a#sha256=00"}}}, "InvalidParameter"),
        ({"osDiskImage": {"source": {"uri": "https://x/a#sha256=00"}}}, "InvalidParameter"),
        ({"osDiskImage": {"source": {"uri": "/var/../etc/passwd"}}}, "InvalidParameter"),
        ({"osDiskImage": {"source": {"uri": "file:///a%00b"}}}, "InvalidParameter"),
        ({"osDiskImage": {"source": {"uri": "file:///%ff"}}}, "InvalidParameter"),
        ({"osDiskImage": {"source": {"uri": "/nowhere.qcow2"}}}, "InvalidParameter"),
        ({"osDiskImage": {"source": {"uri": "/proc/self"}}}, "InvalidParameter"),
        ({"osDiskImage": {"source": {"uri": "https://["}}}, "InvalidParameter"),
        ({"osDiskImage": {"source": {"id": "/x"}}}, "LinkedInvalidPropertyId"),
        ({"source": {"virtualMachineId": "/x"}}, "NotSupportedInLab"),
        ({"source": {"communityGalleryImageId": "/x"}}, "NotSupportedInLab"),
        ({"dataDiskImages": [{"lun": 0}]}, "NotSupportedInLab"),
        ({"sorce": {}}, "InvalidParameter"),
        ({"source": {"id": WHOLE_TINY}}, "NotSupportedInLab"),
        ({"source": {"id": f"{WHOLE_TINY}/versions/7.0.0"}}, "GalleryImageNotFound"),
        *(
            ({place: source}, "NotSupportedInLab")
            for kind in ("images", "snapshots", "disks", "virtualMachines")
            for place, source in (
                ("source", {"id": f"/subscriptions/s/resourceGroups/g/providers/M.C/{kind}/x"}),
            )
        ),
    ],
)
def test_a_source_that_a_lab_does_not_have_is_refused(same: Api, storage: Any, code: str):
    body = {"location": "local", "properties": {"storageProfile": storage}}
    refused = same.ask("PUT", f"{TINY}/versions/2.0.0", body=body)
    assert refused.json()["error"]["code"] == code
    assert refused.status_code in {400, 404}
    assert same.ask("GET", f"{TINY}/versions/2.0.0").status_code == 404


def test_another_version_is_a_source_at_once(api: Api):
    body = {
        "location": "local",
        "properties": {"storageProfile": {"source": {"id": f"{WHOLE_TINY}/versions/1.0.0"}}},
    }
    made = api.ask("PUT", f"{TINY}/versions/1.10.0", body=body)
    assert (made.status_code, state(made)) == (201, "Succeeded")
    assert "Azure-AsyncOperation" not in made.headers
    assert api.ask("PUT", f"{TINY}/versions/1.10.0", body=body).status_code == 200
    assert api.ask("PUT", f"{TINY}/versions/1.9.0", body=body).status_code == 201
    assert latest(api) == "1.10.0"
    listed = api.ask("GET", f"{TINY}/versions").json()["value"]
    assert [each["name"] for each in listed] == ["1.0.0", "1.1.0", "1.9.0", "1.10.0"]
    body["properties"]["storageProfile"]["source"]["id"] = f"{WHOLE_TINY}/versions/1.1.0"
    other = api.ask("PUT", f"{TINY}/versions/1.10.0", body=body)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "PropertyChangeNotAllowed")
    assert api.ask("DELETE", f"{TINY}/versions/1.0.0").status_code == 200


def test_a_put_without_a_source_changes_only_what_it_names(api: Api):
    at = f"{TINY}/versions/1.1.0"
    before = api.ask("GET", at).json()
    body = {
        "location": "local",
        "properties": {
            "publishingProfile": {
                "excludeFromLatest": True,
                "endOfLifeDate": "2030-01-31T00:00:00Z",
                "targetRegions": [
                    {"name": "East US", "regionalReplicaCount": 2},
                    {"name": "local", "excludeFromLatest": True},
                ],
            },
            "storageProfile": {"osDiskImage": {}},
        },
        "tags": {"a": "b"},
    }
    changed = api.ask("PUT", at, body=body)
    assert changed.status_code == 200
    publishing = changed.json()["properties"]["publishingProfile"]
    assert publishing["endOfLifeDate"] == "2030-01-31T00:00:00+00:00"
    assert publishing["targetRegions"] == [
        {"name": "East US", "regionalReplicaCount": 2, "excludeFromLatest": False},
        {"name": "local", "excludeFromLatest": True},
    ]
    assert changed.json()["properties"]["labctl"] == before["properties"]["labctl"]
    assert (latest(api), latest(api, "eastus")) == ("1.0.0", "1.0.0")
    assert api.ask("PUT", at, body=changed.json()).json() == changed.json()
    patch = {"properties": {"publishingProfile": {"excludeFromLatest": False}}}
    assert api.ask("PATCH", at, body=patch).status_code == 200
    assert (latest(api), latest(api, "eastus")) == ("1.0.0", "1.1.0")
    patch["properties"]["publishingProfile"] = {"targetRegions": None, "endOfLifeDate": None}
    assert api.ask("PATCH", at, body=patch).status_code == 200
    assert (latest(api), latest(api, "westus")) == ("1.1.0", "1.1.0")
    assert load(api)[-1].end_of_life is None


def test_a_stale_etag_changes_nothing(api: Api):
    at = f"{TINY}/versions/1.1.0"
    etag = api.ask("GET", at).headers["ETag"]
    body = {"properties": {"publishingProfile": {"excludeFromLatest": True}}}
    assert api.ask("PATCH", at, body=body, headers={"If-Match": etag}).status_code == 200
    for method in ("PATCH", "PUT", "DELETE"):
        stale = api.ask(method, at, body=body, headers={"If-Match": etag})
        assert stale.status_code == 412
    new = api.ask("PUT", at, body=body, headers={"If-None-Match": "*"})
    assert new.status_code == 412


def test_what_a_scale_set_uses_is_not_deleted(api: Api):
    reference = {"publisher": "labctl", "offer": "tiny", "sku": "default", "version": "1.0.0"}
    storage = {"imageReference": reference, "osDisk": {"createOption": "FromImage"}}
    body = {
        "location": "local",
        "sku": {"name": "Standard_B1s", "capacity": 1},
        "properties": {"virtualMachineProfile": {"storageProfile": storage}},
    }
    path = "resourceGroups/labctl/providers/Microsoft.Compute/virtualMachineScaleSets/web"
    made = api.ask("PUT", path, body=body)
    assert made.status_code == 201, made.text
    used = api.ask("DELETE", f"{TINY}/versions/1.0.0")
    assert (used.status_code, used.json()["error"]["code"]) == (409, "OperationNotAllowed")
    assert "scale set web" in used.json()["error"]["message"]
    assert api.ask("DELETE", f"{TINY}/versions/1.1.0").status_code == 200


def test_a_version_that_may_not_be_deleted_yet_is_kept(api: Api):
    at = f"{TINY}/versions/1.1.0"
    body = {"properties": {"safetyProfile": {"blockDeletionBeforeEndOfLife": True}}}
    assert api.ask("PATCH", at, body=body).status_code == 200
    refused = api.ask("DELETE", at)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "OperationNotAllowed")
    assert api.ask("DELETE", at, scope=Scope.READ).status_code == 403


@pytest.mark.parametrize("name", ["latest", "1.0", "01.0.0", "1.0.2147483648", "x"])
def test_what_is_no_version_is_refused(same: Api, name: str):
    for method in ("GET", "PUT", "DELETE"):
        assert same.ask(method, f"{TINY}/versions/{name}", body={}).status_code == 400
