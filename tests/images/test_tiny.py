import json
import os
import subprocess
import time
import urllib.request
from datetime import timedelta

import pytest

from labctl.drivers.keys import make_key_pair
from labctl.guest.boot_script import AgentConfig, BootConfig, DataDiskMount, build_boot_script

pytestmark = pytest.mark.e2e

COUNTING_SCRIPT = b"#!/bin/sh\necho ran for $INSTANCE_ID | tee -a /var/lib/count\nexit 0\n"


def test_tiny_serves_logs_in_and_runs_custom_data_once_for_each_instance_id(
    build_tiny, new_guest, capsys
):
    built = build_tiny(greeting='it\'s "new" & $HOME')
    guest = new_guest(built.path)
    guest.write_seed("web_3-g1-00000001", user_data=COUNTING_SCRIPT)
    guest.start()
    assert guest.get("/health") == (200, "ok\n")
    seconds = time.monotonic() - guest.started_at
    assert guest.get("/version") == (200, "1.0.0\n")
    assert guest.get("/greeting") == (200, 'it\'s "new" & $HOME\n')

    assert guest.verdict() == {
        "status": "done",
        "exitCode": 0,
        "instanceId": "web_3-g1-00000001",
        "runs": 1,
        "detail": "",
    }
    facts = guest.run(
        "hostname; id -u; sudo -n cat /etc/labctl-image; cat /var/log/custom-data.log"
    )
    assert facts.splitlines() == [
        "web-3",
        "0",
        "IMAGE_NAME=tiny",
        "IMAGE_VERSION=1.0.0",
        f"IMAGE_BUILD_ID={built.build_id}",
        'IMAGE_GREETING=it\'s "new" & $HOME',
        "IMAGE_FAULT=none",
        "--- web_3-g1-00000001",
        "ran for web_3-g1-00000001",
    ]
    assert guest.run("whoami", user="root") == "root\n"
    megabytes = int(guest.run("df -m / | tail -n 1 | awk '{print $2}'"))
    assert megabytes > 900, "the root grows with the disk"
    guest.run("app-health fail")
    assert guest.get("/health") == (503, "unhealthy\n")
    guest.run("app-health ok")
    assert guest.get("/health") == (200, "ok\n")
    first_boot = guest.run("cat /proc/sys/kernel/random/boot_id")
    stopped_in = guest.press_power_button()

    guest.start()  # the same disk and seed
    assert guest.verdict()["runs"] == 1
    assert guest.run("cat /proc/sys/kernel/random/boot_id") != first_boot
    assert guest.run("cat /var/lib/count").count("\n") == 1
    guest.press_power_button()

    guest.write_seed("web_3-g2-00000001", user_data=COUNTING_SCRIPT)
    guest.start()
    assert guest.verdict()["instanceId"] == "web_3-g2-00000001"
    assert guest.run("cat /var/lib/count").splitlines() == [
        "ran for web_3-g1-00000001",
        "ran for web_3-g2-00000001",
    ]
    with capsys.disabled():
        print(f"\n  tiny: /health {seconds:.1f} s after power-on, stopped in {stopped_in:.1f} s")


def test_tiny_runs_labctls_boot_script(build_tiny, new_guest):
    host_key = make_key_pair("web-3")
    script = build_boot_script(
        BootConfig(
            instance_id="web_3-g1-00000001",
            host_key=host_key.private,
            host_key_public=host_key.public,
            controller_public_key=(guest_key := make_key_pair("controller")).public,
            data_disks=(DataDiskMount(name="db", file_system="ext4", mount_point="/srv/db"),),
            health=AgentConfig(
                token="t" * 64,
                protocol="http",
                app_port=8080,
                request_path="/health",
                interval=timedelta(seconds=5),
                number_of_probes=1,
            ),
        )
    )
    guest = new_guest(build_tiny().path, data_disk=True)
    guest.key = guest_key
    guest.write_seed("web_3-g1-00000001", boot_script=script, user_data=b"packages: [vim]\n")
    guest.start()
    # The injected key is verified from the first connection on.
    prepared = json.loads(guest.run("cat /run/labctl/boot.json", host_key=host_key.public))
    assert prepared["status"] == "ok", prepared
    assert prepared["dataDisks"][0]["state"] == "formatted"
    assert "ext4" in guest.run("mount | grep /srv/db")
    guest.run("echo kept >/srv/db/file; sync")

    def ask_agent():
        request = urllib.request.Request(
            f"http://127.0.0.1:{guest.agent_port}/health", headers={"X-Labctl-Token": "t" * 64}
        )
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:
                told = json.load(answer)
        except OSError:
            return None
        return told if told["state"] == "Healthy" else None

    assert guest.wait(ask_agent, "the agent says Healthy")["bootId"]
    verdict = guest.verdict()
    assert (verdict["status"], verdict["runs"]) == ("error", 0)
    assert "tiny runs scripts only" in verdict["detail"]

    guest.kill()  # the power goes away
    guest.start()
    assert guest.run("cat /srv/db/file", host_key=host_key.public) == "kept\n"


def test_two_versions_differ_in_the_guest_and_an_unhealthy_one_answers_503(build_tiny, new_guest):
    guest = new_guest(build_tiny("1.10.0", greeting="other", fault="unhealthy").path)
    guest.start()  # without any seed
    assert guest.get("/health") == (503, "unhealthy\n")
    assert guest.get("/version") == (200, "1.10.0\n")
    assert guest.get("/greeting") == (200, "other\n")


def test_a_panicking_image_tells_the_console_and_the_hypervisor(build_tiny, new_guest):
    guest = new_guest(build_tiny(fault="panic").path)
    guest.start("-device", "pvpanic")
    guest.wait_for_end(60)  # QEMU ends when the guest tells it of a panic
    assert "Kernel panic - not syncing" in guest.console_text()


def test_an_image_with_fault_poweroff_boots_and_switches_itself_off(build_tiny, new_guest):
    guest = new_guest(build_tiny(fault="poweroff").path)
    guest.start()
    assert guest.get("/health") == (200, "ok\n")
    guest.wait_for_end(60)
    assert "switches itself off" in guest.console_text()


def test_no_boot_has_no_boot_sector(build_tiny, tmp_path):
    sector = tmp_path / "sector"
    image = build_tiny(fault="no-boot").path
    subprocess.run(
        ["qemu-img", "dd", "-O", "raw", f"if={image}", f"of={sector}", "bs=512", "count=1"],
        check=True,
    )
    assert sector.read_bytes()[510:] == b"\0\0"


def test_the_same_build_again_is_the_cached_one(build_tiny):
    first = build_tiny()
    again = build_tiny()
    assert again.from_cache
    assert (again.build_id, again.path) == (first.build_id, first.path)
    assert not os.access(first.path, os.W_OK) or os.geteuid() == 0
    assert first.path.stat().st_mode & 0o222 == 0
