"""`labctl export` and `labctl import`."""

import io
import json
import sys

import pytest
import yaml

from labctl.cli.app import main
from labctl.cli.arm import _make_readable
from labctl.cli.spec_file import parse_spec
from labctl.store.arm_resources import save_resource
from labctl.store.scale_sets import save_model
from tests.arm.test_vmss import make_body
from tests.arm.test_vmss_round_trip import ID
from tests.cli.test_scaleset import NOW
from tests.cli.test_scaleset import database as database  # noqa: PLC0414 - a fixture
from tests.cli.test_scaleset import lab as lab  # noqa: PLC0414 - a fixture
from tests.cli.test_scaleset import web as web  # noqa: PLC0414 - a fixture

SPEC = """
name: web
capacity: 2
image: {definition: tiny}
dataDisks: [{name: data, size: 64MiB, fileSystem: ext4, mountPoint: /data}]
customData: {inline: "[no expression]\\n"}
extensions:
- name: setup
  script: "[ -e /x ] || touch '/x 😀'"
  protectedSettings: {password: hunter2}
  timeout: 3m
health: {probe: {protocol: tcp, port: 22}}
upgradePolicy: {mode: Rolling, healthTimeout: 90s}
"""


@pytest.fixture
def stored(web, tmp_path):
    """The scale set `web`, with secrets and with what clients have said of it."""
    spec = parse_spec(SPEC, source="spec", base=tmp_path)
    with web.write() as connection:
        save_model(connection, spec, now=NOW)
        save_resource(
            connection,
            str(ID),
            type="Microsoft.Compute/virtualMachineScaleSets",
            group="rg1",
            name="Web",
            document={"tags": {"team": "[blue]"}},
            now=NOW,
        )
    return spec


def _plain(spec):
    return spec.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, context={"reveal": True}
    )


def test_a_name_in_capitals_as_azure_writes_it_is_told_in_small_letters(stored, capsys):
    for words in (["get", "Web"], ["export", "WEB"]):
        assert main(words) == 3
        told = capsys.readouterr().err
        assert "there is 'web': labctl writes all names in lower case\n" in told
        assert "next: say web instead\n" in told


def test_export_prints_what_get_prints(stored, capsys):
    assert main(["export", "web"]) == 0
    exported = capsys.readouterr().out
    assert main(["get", "web"]) == 0
    assert capsys.readouterr().out == exported


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_what_is_exported_as_a_template_is_imported_as_it_was(stored, form, tmp_path, capsys):
    assert main(["export", "web", "--arm", "-o", form]) == 0
    text = capsys.readouterr().out
    assert "hunter2" not in text
    file = tmp_path / "web.template"
    file.write_text(text, encoding="utf-8")
    secrets = json.dumps({"password": "hunter2"})
    assert main(["import", str(file), "--parameter", f"protectedSettings0={secrets}"]) == 0
    told = capsys.readouterr()
    assert yaml.safe_load(told.out) == _plain(stored)
    assert "tags.team" in told.err


def test_a_template_without_its_secrets_is_not_imported(stored, tmp_path, capsys):
    assert main(["export", "web", "--arm"]) == 0
    file = tmp_path / "web.json"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    assert main(["import", str(file)]) == 2
    assert "protectedSettings0" in capsys.readouterr().err


def test_a_resource_can_be_exported_without_a_template(stored, capsys):
    assert main(["export", "web", "--arm", "--resource"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["type"] == "Microsoft.Compute/virtualMachineScaleSets"
    assert document["tags"] == {"team": "[blue]"}
    assert main(["export", "web", "--resource"]) == 2


def test_a_body_of_the_sdk_is_imported(tmp_path, capsys):
    file = tmp_path / "body.json"
    file.write_text(json.dumps({"name": "ss1", **make_body()}, indent="\t"), encoding="utf-8")
    assert main(["import", str(file), "--image", "debian:1.0.0", "-o", "json"]) == 2
    assert "with version set to 'latest'" in capsys.readouterr().err
    assert main(["import", str(file), "--image", "debian"]) == 0
    spec = parse_spec(capsys.readouterr().out, source="import", base=tmp_path)
    assert (spec.name, spec.image.definition, spec.capacity) == ("ss1", "debian", 5)


def test_a_body_of_a_put_is_asked_for_its_name(tmp_path, capsys):
    (tmp_path / "body.json").write_text(json.dumps(make_body()), encoding="utf-8")
    assert main(["import", str(tmp_path / "body.json")]) == 2
    told = capsys.readouterr().err
    assert "the body of a PUT has none, so add one" in told
    assert "next: correct it; labctl export NAME --arm" in told


def test_faults_are_told_with_line_and_column(tmp_path, capsys):
    body = {"name": "ss1", **make_body(), "sku": {"name": "Standard_Huge", "capacity": -1}}
    file = tmp_path / "body.json"
    file.write_text(json.dumps(body, indent=1), encoding="utf-8")
    lines = file.read_text(encoding="utf-8").splitlines()
    assert main(["import", str(file)]) == 2
    told = capsys.readouterr().err
    line, at = next((line, each.index('"Standard_Huge'))
                    for line, each in enumerate(lines, 1) if "Standard_Huge" in each)  # fmt: skip
    assert f"{file}:{line}:{at + 1}: 'sku.name' is no size of this lab" in told
    assert "names no image of a lab" in told


def test_a_template_with_a_balancer_brings_its_probe_along(monkeypatch, tmp_path, capsys):
    body = make_body()
    profile = body["properties"]["virtualMachineProfile"]
    profile["extensionProfile"]["extensions"] = []
    probe = "[resourceId('Microsoft.Network/loadBalancers/probes', 'l', 'p')]"
    profile["networkProfile"]["healthProbe"]["id"] = probe
    properties = {"protocol": "Http", "port": 80, "requestPath": "/lb"}
    template = {
        "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
        "contentVersion": "1.0.0.0",
        "parameters": {
            "count": {"type": "int", "defaultValue": 3},
            "release": {"type": "string"},
        },
        "resources": [
            {
                "type": "Microsoft.Network/loadBalancers",
                "apiVersion": "2022-01-01",
                "name": "l",
                "location": "local",
                "properties": {"probes": [{"name": "p", "properties": properties}]},
            },
            {
                "type": "Microsoft.Compute/virtualMachineScaleSets",
                "apiVersion": "2022-01-01",
                "name": "Web",
                **body,
                "sku": {"name": "Standard_B1s", "capacity": "[parameters('count')]"},
            },
        ],
    }
    deployment = {"properties": {"template": template, "parameters": {"count": {"value": 2}}}}
    content = json.dumps(deployment).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    words = ["import", "-", "--image", "tiny", "--parameter", "count=4"]
    assert main([*words, "--parameter", "Release=12"]) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert found["health"]["probe"]["requestPath"] == "/lb"
    assert (found["name"], found["capacity"]) == ("web", 4)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "must hold a JSON object"),
        ("{}", "'name' is missing"),
        ('{"type": "Microsoft.Network/loadBalancers"}', "must hold a resource of the type"),
        ('{"resources": []}', "must have one scale set; it has 0: none"),
        (
            json.dumps(
                {
                    "resources": [
                        {
                            "type": "Microsoft.Compute/virtualMachineScaleSets",
                            "apiVersion": "2022-01-01",
                            "name": "web",
                            "location": "[reference('x/y').location]",
                        }
                    ]
                }
            ),
            "template validation failed",
        ),
        ("{", "ends inside quotes or brackets"),
    ],
)
def test_files_that_are_something_else_are_refused(text, told, tmp_path, capsys):
    file = tmp_path / "file.json"
    file.write_text(text, encoding="utf-8")
    assert main(["import", str(file)]) == 2
    assert told in capsys.readouterr().err


def test_escapes_of_json_that_yaml_does_not_know_are_understood():
    for value in ({"a": "😀"}, {"a": "\\ud83d\\ude00"}, {"a": "\t"}):
        text = _make_readable(json.dumps(value, indent="\t"))
        assert json.loads(text) == value
        assert yaml.safe_load(text) == value


def test_files_that_cannot_be_read_are_told(tmp_path, capsys):
    assert main(["import", str(tmp_path / "nowhere.json")]) == 2
    assert capsys.readouterr().err == (
        f"labctl: '{tmp_path}/nowhere.json' cannot be read\n  No such file or directory\n"
        "next: name a file of JSON or YAML, or - for standard input\n"
    )
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert main(["import", str(tmp_path / "binary")]) == 2
    assert "is not UTF-8 text" in capsys.readouterr().err


def test_a_spec_is_printed_without_defaults(web, tmp_path, capsys):
    text = (
        "name: web\ncapacity: 1\nimage: {definition: tiny}\nextensions:\n- {name: one, script: x}\n"
    )
    with web.write() as connection:
        save_model(connection, parse_spec(text, source="spec", base=tmp_path), now=NOW)
    assert main(["get", "web"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["extensions"] == [{"name": "one", "script": "x"}]
