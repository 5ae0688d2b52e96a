"""The whole way with real cloud-init: the custom data of a user beside labctl, and an upgrade."""

import pytest

from tests.e2e.harness import HEALTH, ROOT, checksum, write_payload

CLOUD_CONFIG = """\
#cloud-config
write_files:
  - path: /etc/from-user
    content: "kept: 'as it is' \\\\ & ü\\n"
runcmd:
  - [sh, -c, ". /etc/labctl-image; echo $IMAGE_VERSION >>/data/runs"]
users:
  - default
  - name: alice
"""
# A user's own `users` and `runcmd` replace those of vendor-data; labctl must not depend on either.
SPEC = {
    "size": {"vcpus": 1, "memory": "512MiB"},
    "image": {"definition": "debian-12", "version": "1.0.0"},
    "dataDisks": [{"name": "db", "size": "64MiB", "fileSystem": "ext4", "mountPoint": "/data"}],
    "customData": {"inline": CLOUD_CONFIG},
    "extensions": [{"name": "mark", "script": "#!/bin/sh\ntest -s /etc/from-user\n"}],
    "health": HEALTH,
    "timeouts": {"shutdown": "60s"},
    "upgradePolicy": {"healthTimeout": "2m"},
}


@pytest.mark.timeout(1500)
def test_cloud_init_runs_custom_data_once_on_each_os_disk(lab):
    recipe = ROOT / "images" / "debian-12"
    for version in ("1.0.0", "1.1.0"):
        lab.run("image", "build", recipe, "--version", version, "--publish")
    lab.apply("cloud", **SPEC)
    try:
        assert lab.ask("cloud_0", "cat /etc/from-user") == "kept: 'as it is' \\ & ü"
        assert lab.ask("cloud_0", "id -un alice debian labctl; hostname").split()[-1] == "cloud-0"
        assert lab.ask("cloud_0", "findmnt -no FSTYPE /data") == "ext4"
        assert lab.ask("cloud_0", "cloud-init status").endswith("done")
        payload = write_payload(lab, "cloud_0")
        assert lab.ask("cloud_0", "cat /data/runs") == "1.0.0"
        lab.run("upgrade", "start", "cloud", "--version", "1.1.0", "--rollback")
        assert lab.ask("cloud_0", "cat /data/runs").split() == ["1.0.0", "1.1.0"]
        assert checksum(lab, "cloud_0") == payload
        assert lab.instances("cloud")["cloud_0"]["health"] == "Healthy"
        lab.run("rerun", "cloud", "--custom-data")
        assert lab.ask("cloud_0", "cat /data/runs").split() == ["1.0.0", "1.1.0", "1.1.0"]
    finally:
        lab.remove("cloud")
