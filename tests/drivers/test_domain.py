"""The XML of a domain: whole documents, checked by libvirt's own schema."""

import subprocess
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from lxml import etree

from labctl.drivers.domain import (
    DataDiskFile,
    DomainConfig,
    DomainTag,
    FirmwareFile,
    Hardware,
    NatNetwork,
    PortForward,
    UserNetwork,
    build_domain_xml,
    read_domain_tag,
)
from labctl.errors import InvalidError

GOLDEN = Path(__file__).parent / "golden"
SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
AWKWARD = Path('/srv/a lab\'s "quoted", & <spaced>=ü/web')

EMULATED = DomainConfig(
    name="web_3",
    scale_set="web",
    uuid=UUID("0a1b2c3d-0000-4000-8000-000000000003"),
    generation=2,
    vcpus=2,
    memory=256 * 2**20,
    acceleration_kind="tcg",
    cpu_model="qemu64",
    os_disk=AWKWARD / "web_3.g2.qcow2",
    base_image=Path("/srv/images/abc.qcow2"),
    seed=AWKWARD / "web_3.g2.iso",
    data_disks=(
        DataDiskFile(name="db", path=AWKWARD / "web_3.data-db.qcow2", serial="data-db"),
        DataDiskFile(name="log", path=AWKWARD / "web_3.data-log.qcow2", serial="data-log"),
    ),
    mac="52:54:00:11:22:33",
    network=UserNetwork(
        forwards=(
            PortForward(host_port=40001, guest_port=22),
            PortForward(host_port=40002, guest_port=17800),
        )
    ),
    console_log=AWKWARD / "web_3.console.log",
    state_dir=AWKWARD.parent,
)
ACCELERATED = replace(
    EMULATED,
    acceleration_kind="kvm",
    cpu_model="host-passthrough",
    network=NatNetwork(name="labctl-web"),
    base_image=None,
    data_disks=(),
)
CONFIG = Path("/srv/a lab=ü/web/web_3.g2.ign")
IGNITED = replace(
    EMULATED,
    firmware_file=FirmwareFile(name="opt/com.coreos/config", path=CONFIG),
    data_disks=(),
)
WINDOWS = replace(EMULATED, hardware=Hardware.WINDOWS)
ENLIGHTENED = replace(ACCELERATED, hardware=Hardware.WINDOWS_VIRTIO, data_disks=EMULATED.data_disks)
CASES = {
    "emulated-user": EMULATED,
    "kvm-nat": ACCELERATED,
    "ignition": IGNITED,
    "windows": WINDOWS,
    "windows-kvm-virtio": ENLIGHTENED,
}


def paths_in(xml):
    root = etree.fromstring(xml.encode())
    return [element.get("file") for element in root.iter("source", "log")]


@pytest.mark.parametrize("name", CASES)
def test_the_xml_is_the_golden_one(name):
    # To accept a change: delete the file, run the test twice, and read the difference.
    golden = GOLDEN / f"domain-{name}.xml"
    xml = build_domain_xml(CASES[name])
    if not golden.exists():
        golden.write_text(xml)
        pytest.fail(f"{golden.name} was missing and has been written")
    assert xml == golden.read_text()


@pytest.mark.skipif(not SCHEMA.exists(), reason="libvirt's schemas are not installed")
@pytest.mark.parametrize("name", CASES)
def test_libvirts_schema_accepts_the_xml(name):
    document = etree.fromstring(build_domain_xml(CASES[name]).encode())
    etree.RelaxNG(etree.parse(SCHEMA)).assertValid(document)


@pytest.mark.host
@pytest.mark.parametrize("name", CASES)
def test_libvirts_test_driver_defines_the_xml(name, tmp_path):
    # The test driver has no qemu type and no command line; it checks all the rest.
    xml = tmp_path / "domain.xml"
    xml.write_text(build_domain_xml(CASES[name]).replace('type="qemu"', 'type="test"', 1))
    xml.write_text(xml.read_text().replace('type="kvm"', 'type="test"', 1))
    subprocess.run(
        ["virsh", "-c", "test:///default", "define", "--validate", xml],
        check=True,
        capture_output=True,
    )


def test_awkward_paths_survive_the_xml():
    assert paths_in(build_domain_xml(EMULATED)) == [
        str(EMULATED.os_disk),
        str(EMULATED.base_image),
        str(EMULATED.seed),
        *(str(disk.path) for disk in EMULATED.data_disks),
        *[str(EMULATED.console_log)] * 2,
    ]


def test_the_name_of_a_firmware_file_and_its_path_survive_the_xml():
    root = etree.fromstring(build_domain_xml(IGNITED).encode())
    (entry,) = root.findall("sysinfo[@type='fwcfg']/entry")
    assert dict(entry.attrib) == {"name": "opt/com.coreos/config", "file": str(CONFIG)}


@pytest.mark.parametrize("character", "&<>'\",")
def test_a_path_that_libvirt_would_pass_on_wrongly_is_refused(character):
    path = Path(f"/srv/a{character}b/web_3.g2.ign")
    file = FirmwareFile(name="opt/com.coreos/config", path=path)
    with pytest.raises(InvalidError, match="which libvirt cannot pass to firmware"):
        build_domain_xml(replace(IGNITED, firmware_file=file))


@pytest.mark.host
def test_libvirt_gives_the_firmware_file_to_qemu(tmp_path):
    xml = tmp_path / "domain.xml"
    xml.write_text(build_domain_xml(IGNITED))
    told = subprocess.run(
        ["virsh", "-c", "qemu:///session", "domxml-to-native", "qemu-argv", xml],
        check=True,
        capture_output=True,
        text=True,
    )
    assert f"-fw_cfg 'name=opt/com.coreos/config,file={CONFIG}'" in told.stdout


@pytest.mark.parametrize(
    "change",
    [
        {"generation": 3},
        {"memory": 512 * 2**20},
        {"seed": Path("/srv/other.iso")},
        {"data_disks": ()},
        {"network": UserNetwork()},
        {"state_dir": Path("/srv/other")},
        {"mac": "52:54:00:11:22:34"},
        {"base_image": None},
        {"firmware_file": IGNITED.firmware_file},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_hash_changes_with_what_the_xml_depends_on(change):
    changed = replace(EMULATED, **change)
    assert changed.config_hash != EMULATED.config_hash
    assert replace(EMULATED).config_hash == EMULATED.config_hash


def test_the_mark_is_read_back():
    root = etree.fromstring(build_domain_xml(EMULATED).encode())
    mark = etree.tostring(root.find("metadata")[0]).decode()
    assert read_domain_tag(mark) == DomainTag(
        scale_set="web",
        name="web_3",
        generation=2,
        config_hash=EMULATED.config_hash,
        state_dir=AWKWARD.parent,
    )


@pytest.mark.parametrize(
    "text", ["", "<a/>", '<i scaleSet="w" name="w" generation="x"/>'], ids=["empty", "other", "cut"]
)
def test_a_mark_that_is_not_ours_is_none(text):
    assert read_domain_tag(text) is None


def test_the_30th_disk_is_named_as_linux_does():
    disks = tuple(
        DataDiskFile(name=f"d{n}", path=Path(f"/d{n}"), serial=f"data-d{n}") for n in range(26)
    )
    root = etree.fromstring(build_domain_xml(replace(EMULATED, data_disks=disks)).encode())
    devices = [target.get("dev") for target in root.iter("target") if target.get("bus")]
    assert [devices[n] for n in (0, 1, 2, 25, 26, 27)] == [
        "vda",
        "vdb",
        "vdc",
        "vdz",
        "vdaa",
        "vdab",
    ]


@pytest.mark.parametrize(
    "path",
    ["relative/os.qcow2", "/new\nline", "/bell\a", "/bad\udcff"],
    ids=["relative", "newline", "bell", "not-utf-8"],
)
def test_paths_that_xml_cannot_hold_are_refused(path):
    with pytest.raises(InvalidError, match="path"):
        build_domain_xml(replace(EMULATED, os_disk=Path(path)))


def test_a_serial_that_virtio_would_cut_is_refused():
    disk = DataDiskFile(name="d", path=Path("/d"), serial="data-" + "d" * 16)
    with pytest.raises(InvalidError, match="too long"):
        build_domain_xml(replace(EMULATED, data_disks=(disk,)))
