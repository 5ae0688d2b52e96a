"""Specs as people write them, and what they are told when something is wrong."""

import io
import json
import os
import re
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.cli.example import list_examples, read_example
from labctl.cli.output import format_yaml
from labctl.cli.spec_file import SPEC_LIMIT, load_spec, parse_spec
from labctl.errors import InvalidError
from labctl.model.spec import ScaleSetSpec
from labctl.model.yaml_text import parse_yaml

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
HEAD = "name: web\ncapacity: 3\nimage: {definition: tiny}\n"  # three lines; tests begin in line 4


def _parse(rest, *, base=Path("/nowhere")):
    return parse_spec(HEAD + rest, source="web.yaml", base=base)


def _faults(rest, *, base=Path("/nowhere")):
    with pytest.raises(InvalidError) as caught:
        _parse(rest, base=base)
    return caught.value.detail.splitlines()


def test_a_short_spec_has_all_the_defaults():
    spec = _parse("")
    assert (spec.name, spec.capacity, spec.image.version) == ("web", 3, "latest")
    assert spec.upgrade_policy.rolling_upgrade_policy.max_batch_instance_percent == 20
    assert spec.upgrade_policy.health_timeout == timedelta(minutes=5)


FAULTS = {
    "dataDisks:\n  - {name: cidata, size: 1GiB}\n": "5:12: dataDisks[0].name: 'cidata' is the "
    "label of the seed, which the guest would look for there",
    "dataDisks:\n  - {name: data}\n": "5:5: dataDisks[0].size: is missing",
    "capacity_: 1\n": "4:1: capacity_: unknown key; did you mean capacity?",
    "custom_data: {}\n": "4:1: custom_data: unknown key; did you mean customData?",
    "upgradePolicy:\n  maxBatchPercnt: 5\n": "5:3: upgradePolicy.maxBatchPercnt: unknown key; did "
    "you mean upgradePolicy.rollingUpgradePolicy.maxBatchInstancePercent?",
    "size: {speed: 3}\n": "4:8: size.speed: unknown key; known here: memory, vcpus",
    "size: {vcpus: 65}\n": "4:15: size.vcpus: must be at most 64, not 65",
    "size: {vcpus: 1.5}\n": "4:15: size.vcpus: must be a whole number, not 1.5",
    "size: {vcpus: '1'}\n": "4:15: size.vcpus: must be a whole number, not '1'",
    "size: {vcpus: true}\n": "4:15: size.vcpus: must be a whole number, not true",
    "size: {memory: 512}\n": "4:16: size.memory: must be a size with its unit, such as "
    '"512MiB" or "10GiB", not 512',
    "size: {memory: 32MiB}\n": "4:16: size.memory: must be at least 64MiB, not '32MiB'",
    "size: {memory: 65537KiB}\n": "4:16: size.memory: must be a whole number of MiB, "
    "not '65537KiB'",
    "size:\n": "4:6: size: is empty; give it a value or remove the key",
    "size: [1]\n": "4:7: size: must be a mapping of keys to values, not a list",
    "sshKeys: one\n": "4:10: sshKeys: must be a list, not 'one'",
    "sshKeys: [1.10]\n": '4:11: sshKeys[0]: must be text; write it in quotes: "1.10"',
    "sshKeys: [me]\n": "4:11: sshKeys[0]: must be one OpenSSH public key, for example "
    "'ssh-ed25519 AAAA... me@host'",
    "sshKeys: [a.pub]\n": "4:11: sshKeys[0]: file 'a.pub' does not exist; looked in '/nowhere'",
    "customData: {file: a.sh}\n": "4:20: customData.file: file 'a.sh' does not exist; looked in "
    "'/nowhere'",
    "customData: {}\n": "4:13: customData: must have exactly one of 'inline' and 'file', not a "
    "mapping",
    "extensions: [{name: a, file: b.sh}]\n": "4:30: extensions[0].file: file 'b.sh' does not "
    "exist; looked in '/nowhere'",
    "extensions: [{name: a, playbook: ~nobody-here/b.yml}]\n": "4:34: extensions[0].playbook: "
    "file '~nobody-here/b.yml' cannot be read: Could not determine home directory.",
    "extensions: [{name: a, script: x, protectedSettingsFile: /tmp}]\n": "4:58: "
    "extensions[0].protectedSettingsFile: file '/tmp' is no regular file",
    "extensions: [{name: a, script: x, provisionAfterExtensions: [b]}]\n": "4:62: "
    "extensions[0].provisionAfterExtensions[0]: there is no extension 'b'; there are: a",
    "extensions: [{name: a, script: x, timeout: 0s}]\n": "4:44: extensions[0].timeout: must be "
    "more than 0 seconds, not '0s'",
    "health: {probe: {}, applicationHealth: {protocol: tcp, port: 1}}\n": "4:17: "
    "health.probe.requestPath: is mandatory for http",
    "health: {probe: {protocol: udp}}\n": "4:28: health.probe.protocol: must be 'http', 'https' "
    "or 'tcp', not 'udp'",
    "network: {type: nat, subnet: 8.8.8.0/24}\n": "4:30: network.subnet: must be a private "
    "network, inside 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16",
    "zones: [1]\n": '4:9: zones[0]: must be text; write it in quotes: "1"',
    "zones: ['1', '2', '1']\n": "4:19: zones[2]: zone '1' is taken by entry 1",
    "zones: [Here]\n": "4:9: zones[0]: must be lower-case letters, digits and '-', not begin or "
    "end with '-', and have at most 40 characters, not 'Here'",
    "faultDomainCount: 21\n": "4:19: faultDomainCount: must be at most 20, not 21",
    "updateDomainCount: 0\n": "4:20: updateDomainCount: must be at least 1, not 0",
    "extensions: [{name: a, script: x, settings: {durabilityLevel: Gold}}]\n"
    "clusterManager: {durabilityLevel: Bronze, extension: a}\n": "4:63: "
    "extensions[0].settings.durabilityLevel: must be 'Bronze', as clusterManager.durabilityLevel, "
    "not 'Gold'",
    "extensions: [{name: a, script: x}]\n"
    "clusterManager: {durabilityLevel: Bronze, extension: a}\n": "4:14: extensions[0].settings: "
    "needs durabilityLevel: Bronze, as clusterManager has it",
    "clusterManager: {durabilityLevel: Bronze, extension: a}\n": "4:54: clusterManager.extension: "
    "there is no extension 'a'; there are none",
    "extensions: [{name: a, script: x, settings: {durabilityLevel: Gold}}]\n"
    "clusterManager: {durabilityLevel: Gold, extension: a}\n"
    "upgradePolicy: {hooks: {drain: {command: [a]}}}\n": "5:35: clusterManager.durabilityLevel: "
    "'Gold' needs upgradePolicy.hooks.drain and .undrain, by which the cluster is told who is "
    "about to stop, and who is back",
    "extensions: [{name: a, script: x, settings: {durabilityLevel: Bronze}}]\n"
    "clusterManager: {durabilityLevel: Bronze, extension: a}\n"
    "upgradePolicy: {automaticOSUpgradePolicy: {enableAutomaticOSUpgrade: true}}\n": "5:35: "
    "clusterManager.durabilityLevel: must be 'Silver' or 'Gold' for enableAutomaticOSUpgrade, not "
    "'Bronze'",
    "clusterManager: {durabilityLevel: Iron, extension: a}\n": "4:35: "
    "clusterManager.durabilityLevel: must be 'Bronze', 'Silver' or 'Gold', not 'Iron'",
    "scaleInPolicy: {rules: []}\n": "4:24: scaleInPolicy.rules: must have at least 1, has 0",
    "network: {type: bridge}\n": "4:17: network.type: must be 'user' or 'nat', not 'bridge'",
    "upgradePolicy: {mode: Rolling}\n": "4:23: upgradePolicy.mode: 'Rolling' needs "
    "health.applicationHealth or health.probe",
    "upgradePolicy: {mode: rolling}\n": "4:23: upgradePolicy.mode: must be 'Manual', 'Automatic' "
    "or 'Rolling', not 'rolling'",
    "upgradePolicy: {healthTimeout: 1y}\n": "4:32: upgradePolicy.healthTimeout: must be a "
    'duration such as "30s", "5m", "1h30m" or ISO 8601 "PT5M", not \'1y\'',
    "upgradePolicy:\n  automaticOSUpgradePolicy: {enableAutomaticOSUpgrade: true}\n": "5:56: "
    "upgradePolicy.automaticOSUpgradePolicy.enableAutomaticOSUpgrade: needs "
    "health.applicationHealth or health.probe",
    "windowsConfiguration: {enableAutomaticUpdates: true}\n"
    "health: {probe: {protocol: tcp, port: 1}}\n"
    "upgradePolicy: {automaticOSUpgradePolicy: {enableAutomaticOSUpgrade: true}}\n": "4:48: "
    "windowsConfiguration.enableAutomaticUpdates: must be false with enableAutomaticOSUpgrade: "
    "Windows Update would restart instances by itself",
    "windowsConfiguration: {}\nhealth: {probe: {protocol: tcp, port: 1}}\n"
    "upgradePolicy: {automaticOSUpgradePolicy: {enableAutomaticOSUpgrade: true}}\n": "4:23: "
    "windowsConfiguration.enableAutomaticUpdates: must be false with enableAutomaticOSUpgrade: "
    "Windows Update would restart instances by itself",
    "windowsConfiguration: {drivers: scsi}\n": "4:33: windowsConfiguration.drivers: must be "
    "'standard' or 'virtio', not 'scsi'",
    "windowsConfiguration: {}\ndataDisks: [{name: a, size: 1GiB, fileSystem: ext4}]\n": "5:47: "
    "dataDisks[0].fileSystem: 'ext4' is only for Linux; Windows has 'ntfs'",
    "windowsConfiguration: {}\ndataDisks: [{name: a, size: 1GiB, mountPoint: /data}]\n": "5:47: "
    "dataDisks[0].mountPoint: must be a drive letter for Windows, such as E:",
    "dataDisks: [{name: a, size: 1GiB, fileSystem: ntfs}]\n": "4:47: dataDisks[0].fileSystem: "
    "'ntfs' is only for windowsConfiguration",
    "dataDisks: [{name: a, size: 1GiB, mountPoint: 'E:'}]\n": "4:47: dataDisks[0].mountPoint: a "
    "drive letter is only for windowsConfiguration",
    "windowsConfiguration: {}\ndataDisks: [{name: a, size: 1GiB, mountPoint: 'C:'}]\n": "5:47: "
    "dataDisks[0].mountPoint: must be an absolute path of letters, digits and . _ - /, or for "
    "Windows a drive letter from E: to Z:, not 'C:'",
    "windowsConfiguration: {}\ncustomData: {inline: '#!/bin/sh'}\n": "5:22: customData.inline: "
    "must begin with #ps1_sysnative, #ps1_x86, 'rem cmd', #cloud-config or 'Content-Type: "
    "multipart' for Windows",
    "windowsConfiguration: {}\nextensions: [{name: a, script: '#!/bin/sh'}]\n": "5:32: "
    "extensions[0].script: begins with '#!'; Windows runs PowerShell, or cmd.exe after 'rem cmd'",
    "windowsConfiguration: {}\nextensions: [{name: a, script: x, protectedSettings: {b: c}}]\n": (
        "5:54: extensions[0].protectedSettings: cannot be handed to Windows instances, where they "
        "would be written to the OS disk"
    ),
}


@pytest.mark.parametrize("rest", FAULTS)
def test_a_fault_is_told_with_its_place_the_value_and_the_rule(rest):
    assert _faults(rest) == [f"web.yaml:{FAULTS[rest]}"]


def test_a_playbook_for_windows_is_refused_with_the_reason(tmp_path):
    (tmp_path / "a.yml").write_text("[]\n")
    rest = "windowsConfiguration: {}\nextensions: [{name: a, playbook: a.yml}]\n"
    assert _faults(rest, base=tmp_path) == [
        "web.yaml:5:34: extensions[0].playbook: playbooks need Python and sudo in the guest; "
        "Windows takes scripts only"
    ]


def test_a_version_that_yaml_reads_as_a_number_is_not_changed_silently():
    text = "name: web\ncapacity: 3\nimage: {definition: tiny, version: 1.10}\n"
    with pytest.raises(InvalidError) as caught:
        parse_spec(text, source="web.yaml", base=Path())
    assert caught.value.detail == (
        'web.yaml:3:36: image.version: must be text; write it in quotes: "1.10"'
    )


def test_all_faults_come_at_once_in_the_order_of_the_text():
    faults = _faults(
        "sshKeys: [gone.pub, me]\nsize: {vcpus: 0}\nzzzz: 1\ncustomData: {file: gone.sh}\n"
        "dataDisks: [{name: a, size: 1GiB}, {name: a, size: 1GiB}]\n"
    )
    assert [re.sub(r"^web.yaml:(\d+:\d+: [^:]+):.*", r"\1", fault) for fault in faults] == [
        "4:11: sshKeys[0]",
        "4:21: sshKeys[1]",
        "5:15: size.vcpus",
        "6:1: zzzz",
        "7:20: customData.file",
        "8:43: dataDisks[1].name",
    ]


def test_a_private_key_is_never_shown(tmp_path):
    (tmp_path / "id").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n")
    (fault,) = _faults("sshKeys: [./id]\n", base=tmp_path)
    assert "private key" in fault
    assert "c2VjcmV0" not in fault


def test_the_mark_that_notepad_puts_before_a_text_is_no_part_of_it(tmp_path):
    (tmp_path / "setup.ps1").write_text("\ufeff#ps1_sysnative\r\nexit 0\r\n")
    spec = _parse("windowsConfiguration: {}\ncustomData: {file: setup.ps1}\n", base=tmp_path)
    assert spec.custom_data is not None
    assert spec.custom_data.inline.startswith("#ps1_sysnative")


def test_files_are_found_beside_the_spec_and_inlined(tmp_path):
    folder = tmp_path / 'it\'s a "lab"'
    folder.mkdir()
    (folder / "boot.sh").write_text("#!/bin/sh\n")
    (folder / "ext.sh").write_text("echo hi\n")
    (folder / "me.pub").write_text(f"{KEY} me@host\n")
    (folder / "web.yaml").write_text(
        HEAD + "customData: {file: boot.sh}\nextensions: [{name: a, file: ext.sh}]\n"
        f"sshKeys: [me.pub, 'file:me.pub', {json.dumps(f'{folder}/me.pub')}, {KEY}]\n"
    )
    spec = load_spec(folder / "web.yaml")
    assert spec.custom_data is not None
    assert (spec.custom_data.inline, spec.custom_data.file) == ("#!/bin/sh\n", None)
    assert (spec.extensions[0].script, spec.extensions[0].file) == ("echo hi\n", None)
    assert spec.ssh_keys == (f"{KEY} me@host",) * 3 + (KEY,)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"x" * 65536, "has more than 65535 bytes"),
        (b"\xff", "is not UTF-8 text"),
        (b"a\0b", "is not a text file"),
    ],
    ids=["large", "encoding", "binary"],
)
def test_files_that_cannot_be_used_are_faults_of_the_line_that_names_them(content, fault, tmp_path):
    (tmp_path / "boot").write_bytes(content)
    assert _faults("customData: {file: boot}\n", base=tmp_path) == [
        f"web.yaml:4:20: customData.file: file 'boot' {fault}"
    ]


def test_a_directory_is_no_script(tmp_path):
    (fault,) = _faults("customData: {file: .}\n", base=tmp_path)
    assert fault.endswith("file '.' cannot be read: Is a directory")


def test_a_missing_spec_names_those_that_are_there(tmp_path):
    (tmp_path / "web.yaml").write_text(HEAD)
    with pytest.raises(InvalidError, match=r"wbe\.yaml' does not exist") as caught:
        load_spec(tmp_path / "wbe.yaml")
    assert caught.value.detail.endswith("are: web.yaml")


@pytest.mark.parametrize(
    ("content", "brief"),
    [
        (b"\x9f", "is not UTF-8 text"),
        (b"#" * (SPEC_LIMIT + 1), "has more than 2 MiB"),
        (b"", "1 error in"),
        (b"- a\n", "1 error in"),
    ],
    ids=["encoding", "large", "empty", "list"],
)
def test_a_file_that_is_no_spec_is_refused(content, brief, tmp_path):
    path = tmp_path / "web.yaml"
    path.write_bytes(content)
    with pytest.raises(InvalidError, match=brief):
        load_spec(path)


def test_a_directory_is_no_spec(tmp_path):
    with pytest.raises(InvalidError, match="is a directory"):
        load_spec(tmp_path)


def test_a_strange_path_is_refused():
    with pytest.raises(InvalidError, match="cannot be read"):
        load_spec(Path("a\0b"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_spec_is_refused(tmp_path):
    path = tmp_path / "web.yaml"
    path.touch(mode=0)
    with pytest.raises(InvalidError, match="cannot be read"):
        load_spec(path)


def test_a_spec_can_come_from_stdin_with_files_beside_the_reader(tmp_path, monkeypatch):
    (tmp_path / "boot.sh").write_text("#!/bin/sh\n")
    text = io.TextIOWrapper(io.BytesIO(f"\ufeff{HEAD}customData: {{file: boot.sh}}\n".encode()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", text)
    spec = load_spec(Path("-"))
    assert spec.custom_data is not None
    assert spec.custom_data.inline == "#!/bin/sh\n"


def test_what_get_prints_can_be_applied_again():
    spec = parse_spec(read_example("debian"), source="debian.yaml", base=Path())
    text = format_yaml(spec.model_dump(mode="json", by_alias=True))
    assert _only_values(text) == spec


def _only_values(text):
    return ScaleSetSpec.model_validate(parse_yaml(text, "again.yaml").value)


def _try(text):
    """Load any text; what is wrong must come as lines with places."""
    detail = ""
    try:
        parse_spec(text, source="web.yaml", base=Path("/nowhere"))
    except InvalidError as error:
        detail = error.detail or "nothing told"
    for line in detail.splitlines():
        assert re.match(r"web\.yaml:\d+:\d+: .", line), line


EXAMPLES = [read_example(name) for name in list_examples()]
_text = st.text(max_size=6) | st.sampled_from(["~", "- ", ": ", "&a ", "*a", '"', "1e9", "\t", "|"])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(EXAMPLES), st.data())
def test_no_damage_to_the_text_of_a_spec_breaks_the_loader(text, data):
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        text = text[:start] + data.draw(_text) + text[end:]
    _try(text)


_junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        [
            "9" * 39 + "d",
            "9" * 39 + "TiB",
            "-1s",
            "P",
            "PT",
            "~root/x",
            "file:",
            "~nobody-here/x.pub",
        ]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "file", "script", "inline", "x"]), inner)
    ),
    max_leaves=5,
)


def _places(value, at=()):
    yield at
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _places(item, (*at, key))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _places(item, (*at, place))


def _replaced(value, at, new):
    if not at:
        return new
    if isinstance(value, dict):
        return value | {at[0]: _replaced(value[at[0]], at[1:], new)}
    return [_replaced(v, at[1:], new) if n == at[0] else v for n, v in enumerate(value)]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(EXAMPLES), st.data())
def test_no_value_at_any_place_breaks_the_loader(text, data):
    value = parse_spec(text, source="x", base=Path()).model_dump(mode="json", by_alias=True)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from(list(_places(value))))
        value = _replaced(value, at, data.draw(_junk))
    _try(format_yaml(value))


def _protected(tmp_path, content, *, mode=0o600):
    file = tmp_path / "secret.yaml"
    file.write_bytes(content)
    file.chmod(mode)
    return "extensions: [{name: a, script: x, protectedSettingsFile: secret.yaml}]\n"


def test_protected_settings_come_from_a_file_of_its_owner_alone(tmp_path):
    rest = _protected(tmp_path, b"token: s3cret\nport: 80\n")
    (extension,) = _parse(rest, base=tmp_path).extensions
    assert extension.protected_settings == {"token": "s3cret", "port": 80}
    assert extension.protected_settings_file is None


@pytest.mark.parametrize(
    ("content", "mode", "fault"),
    [
        (b"token: s3cret\n", 0o640, "may be used by others (mode 0640); run: chmod 600 "),
        (b"s3cret\n", 0o600, "must hold a mapping"),
        (b"token: 's3cret\nx: [", 0o600, "is no valid YAML or JSON; see line:column "),
        (b"s3cret: 1\ns3cret: 2\n", 0o600, "is no valid YAML or JSON; see line:column 2:1"),
        (b"token: \xff\n", 0o600, "is not UTF-8 text"),
        (b"token: " + b"x" * 70000, 0o600, "has more than 65536 bytes"),
        (b"a/b: s3cret\n", 0o600, "letters, digits"),
    ],
)
def test_faults_of_a_protected_file_do_not_repeat_it(content, mode, fault, tmp_path):
    (found,) = _faults(_protected(tmp_path, content, mode=mode), base=tmp_path)
    assert found.startswith("web.yaml:4:5")
    assert "extensions[0].protectedSettingsFile" in found
    assert fault in found
    assert "s3cret" not in found


@pytest.mark.parametrize(
    ("rest", "fault"),
    [
        (
            "script: x, protectedSettings: s3cret",
            "4:54: extensions[0].protectedSettings: must be a mapping",
        ),
        (
            "script: x, protectedSettings: {t: '********'}",
            "4:58: extensions[0].protectedSettings.t: is the mask",
        ),
        (
            "script: x, protectedSettingsFile: gone",
            "4:58: extensions[0].protectedSettingsFile: file 'gone' cannot",
        ),
        ("playbook: gone.yml", "4:34: extensions[0].playbook: file 'gone.yml' does not exist"),
        ("url: 'https://a/x?sig=s3cret'", "4:29: extensions[0].url: holds a signature"),
    ],
)
def test_faults_of_protected_settings_do_not_show_them(rest, fault, tmp_path):
    faults = _faults(f"extensions: [{{name: a, {rest}}}]\n", base=tmp_path)
    assert any(found.startswith(f"web.yaml:{fault}") for found in faults), faults
    assert not any("s3cret" in found for found in faults)


def test_a_playbook_is_named_by_its_whole_path(tmp_path):
    (tmp_path / "play.yml").touch()
    (extension,) = _parse("extensions: [{name: a, playbook: play.yml}]\n", base=tmp_path).extensions
    assert extension.playbook == str(tmp_path / "play.yml")


def test_what_get_prints_of_protected_settings_is_a_mask_that_apply_refuses(tmp_path):
    spec = _parse("extensions: [{name: a, script: x, protectedSettings: {t: s3cret}}]\n")
    plain = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    text = format_yaml(plain)
    assert "s3cret" not in text
    with pytest.raises(InvalidError, match="error") as caught:
        parse_spec(text, source="web.yaml", base=tmp_path)
    assert "is the mask that labctl prints" in caught.value.detail
