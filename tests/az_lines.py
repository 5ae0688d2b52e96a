"""The lines of az that `make az` runs, in an order that makes sense for one lab."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.az_stand import SET, Stand
from tests.e2e.api_server import GROUP, tiny_id, write_key
from tests.e2e.harness import wait_for

Json = Any  # what json.loads gives
Check = Callable[[Json], str]  # what is seen in the answer; raises when it is not as it should be

LONG = 400  # seconds; only a hang gets there
TEMPLATE = Path(__file__).with_name("az_template.json")
PAGES_SPELLING = "UpgradePolicy.AutomaticOSUpgradePolicy.EnableAutomaticOSUpgrade=true"


@dataclass(frozen=True, slots=True, kw_only=True)
class AzLine:
    """One line, and what must come of it."""

    words: tuple[str, ...]
    check: Check | None = None  # of the answer; of the complaint where one is expected
    expect: int = 0  # exit code
    is_refused_by_az: bool = False  # before a server is asked to change anything
    before: Callable[[Stand], None] | None = None
    seconds: float = LONG


def az(words: str, *more: str, check: Check | None = None, **values: Any) -> AzLine:
    return AzLine(words=(*words.split(), *more), check=check, **values)


def lines_of_the_page(stand: Stand) -> Iterator[AzLine]:
    """Everything, from `az version` to the deletion of what was made."""
    yield from _to_get_in(stand)
    yield from _to_look(stand)
    yield from _to_configure(stand)
    yield from _to_upgrade(stand)
    yield from _for_instances(stand)
    yield from _for_images(stand)
    yield from _to_deploy(stand)
    yield from _that_are_refused(stand)


def _to_get_in(stand: Stand) -> Iterator[AzLine]:
    server = stand.server
    yield az("version", check=lambda found: f"azure-cli {found['azure-cli']}")
    yield az("cloud register -n Lab --endpoint-resource-manager", server.url)
    yield az("cloud set -n Lab")
    yield az(
        "login --service-principal --tenant adfs -u",
        server.client_id,
        "-p",
        server.token,
        check=lambda found: _show(found[0], "id", "state", expected=server.subscription),
    )
    yield az("group create -n az -l local", check=lambda found: _show(found, "name", "location"))
    yield az("group list", check=lambda found: _names(found, "az", GROUP))


def _to_look(stand: Stand) -> Iterator[AzLine]:
    mine = ("-g", GROUP, "-n", SET)
    yield az("vmss list", check=lambda found: _names(found, SET))
    yield az("vmss list -g", GROUP, check=lambda found: _names(found, SET))
    yield az("vmss show", *mine, check=lambda found: _show(found, "name", "sku.capacity"))
    yield az(
        "vmss list-instances", *mine, check=lambda found: _names(found, f"{SET}_0", f"{SET}_1")
    )
    yield az(
        "vmss get-instance-view",
        *mine,
        check=lambda found: _show(found, "virtualMachine.statusesSummary"),
    )
    yield az("vmss get-instance-view --instance-id 0", *mine, check=_see_one_view)
    yield az("vmss get-instance-view --instance-id *", *mine, check=_see_views)
    yield az("vmss get-os-upgrade-history", *mine, check=lambda found: f"{len(found)} upgrades")


def _to_configure(stand: Stand) -> Iterator[AzLine]:
    update = ("vmss", "update", "-g", GROUP, "--name", SET)
    yield AzLine(
        words=(*update, "--set", PAGES_SPELLING),
        expect=1,
        is_refused_by_az=True,
        check=lambda said: _expect_text(said, "Couldn't find 'UpgradePolicy'"),
    )
    small = PAGES_SPELLING[0].lower() + PAGES_SPELLING[1:]
    small = small.replace(".Auto", ".auto").replace(".Enable", ".enable")
    yield AzLine(words=(*update, "--set", small), check=_see_automatic)
    yield AzLine(words=(*update, "--enable-auto-os-upgrade", "false"), check=_see_not_automatic)
    yield AzLine(words=(*update, "--enable-auto-os-upgrade", "true"), check=_see_automatic)
    yield AzLine(
        words=(*update, "--max-batch-instance-percent", "50", "--set", "tags.made=az"),
        check=lambda found: _show(found, "tags", "upgradePolicy.rollingUpgradePolicy"),
    )


def _to_upgrade(stand: Stand) -> Iterator[AzLine]:
    mine = ("-g", GROUP, "-n", SET)
    upgrade = "vmss rolling-upgrade"
    new = ("-g", GROUP, "-r", GROUP, "-i", "tiny", "-e", "1.1.0")
    yield az(
        "sig image-version create",
        *new,
        "--image-version",
        tiny_id(stand.server, "1.1.0", "next"),
        check=lambda found: _show(found, "name", "provisioningState", expected="Succeeded"),
    )
    yield az(f"{upgrade} start --no-wait", *mine)
    yield az(f"{upgrade} get-latest", *mine, check=_see_upgrade, before=_await_upgrade)
    yield az(f"{upgrade} cancel", *mine)
    yield az(f"{upgrade} get-latest", *mine, check=lambda found: _see_upgrade(found, "Cancelled"))
    yield az(f"{upgrade} start", *mine)
    yield az(f"{upgrade} get-latest", *mine, check=lambda found: _see_upgrade(found, "Completed"))
    yield az("vmss get-os-upgrade-history", *mine, check=_see_history)
    yield az("vmss update-instances --instance-ids *", *mine)
    yield az(
        "vmss list-instances --query [].[name,latestModelApplied]",
        *mine,
        check=lambda found: _expect_equal(sorted(found), [[f"{SET}_{n}", True] for n in (0, 1)]),
    )


def _await_upgrade(stand: Stand) -> None:
    """--no-wait returns when the wish is written down; the upgrade begins a moment later."""
    wait_for(
        lambda: stand.lab.json("upgrade", "history", SET), seconds=60, what="the upgrade's begin"
    )


def _for_instances(stand: Stand) -> Iterator[AzLine]:
    mine = ("-g", GROUP, "-n", SET)
    yield az("vmss reimage --instance-ids 0", *mine)
    yield az("vmss restart --instance-ids 1", *mine)
    yield az("vmss deallocate --instance-ids 1", *mine)
    yield az("vmss start --instance-ids 1", *mine)
    yield az(
        "vmss update --instance-id 0 --protect-from-scale-in true",
        *mine,
        check=lambda found: _show(found, "name", "protectionPolicy"),
    )
    yield az(
        "vmss scale --new-capacity 1",
        *mine,
        check=lambda found: _show(found, "sku.capacity", expected=1),
    )
    yield az("vmss list-instances", *mine, check=lambda found: _names(found, f"{SET}_0"))


def _for_images(stand: Stand) -> Iterator[AzLine]:
    version = ("-g", GROUP, "-r", GROUP, "-i", "tiny")
    at = ("-l", "local")
    yield az("vm image list --all", *at, check=_see_images)
    yield az(
        "vm image list --all --publisher labctl --offer tiny --sku default",
        *at,
        check=_see_images,
    )
    yield az(
        "vm image show --urn labctl:tiny:default:latest",
        *at,
        check=lambda found: _show(found, "name", expected="1.1.0"),
    )
    yield az("sig list", check=lambda found: _names(found, GROUP))
    yield az(
        "sig image-definition show -g",
        *version[1:],
        check=lambda found: _show(found, "name", "osType", "osState"),
    )
    yield az(
        "sig image-version list", *version, check=lambda found: _names(found, "1.0.0", "1.1.0")
    )
    yield az(
        "sig image-version update -e 1.0.0 --set publishingProfile.excludeFromLatest=true",
        *version,
        check=lambda found: _show(found, "publishingProfile.excludeFromLatest", expected=True),
    )
    yield az(
        "sig image-version show -e 1.0.0 --expand ReplicationStatus",
        *version,
        check=lambda found: _show(found, "publishingProfile.excludeFromLatest", expected=True),
    )
    yield az("sig create -g az -r azgallery -l local", check=lambda found: _show(found, "name"))
    yield az(
        "sig image-definition create -g az -r azgallery -i copied --publisher lab --offer o --sku s"
        " --os-type Linux -l local",
        check=lambda found: _show(found, "name", "osType"),
    )
    copied = ("-g", "az", "-r", "azgallery", "-i", "copied", "-e", "2.0.0", "-l", "local")
    source = tiny_id(stand.server, "1.1.0")
    yield az(
        "sig image-version create --managed-image",
        source,
        *copied,
        check=lambda found: _show(found, "name", "provisioningState", expected="Succeeded"),
    )
    yield az("sig image-version delete", *copied[:-2])
    yield az("sig image-definition delete", *copied[:6])
    yield az("sig delete -g az -r azgallery")


def _to_deploy(stand: Stand) -> Iterator[AzLine]:
    key = write_key(stand.work)
    deployment = ("-g", "az", "-n", "page")
    given = ("--template-file", str(TEMPLATE), "--parameters", "vmssName=page1", "offer=tiny")
    given = (*given, "vmSku=Lab_1_128", f"adminPublicKey={key}")
    yield az(
        "deployment group validate",
        *deployment,
        *given,
        check=lambda found: _show(found, "properties.provisioningState", expected="Succeeded"),
    )
    yield az("deployment group what-if --no-pretty-print", *deployment, *given, check=_see_what_if)
    yield az(
        "deployment group create",
        *deployment,
        *given,
        check=lambda found: _show(
            found,
            "properties.provisioningState",
            "properties.outputs.upgradePolicy.value.automaticOSUpgradePolicy",
            expected="Succeeded",
        ),
    )
    yield az(
        "deployment group show",
        *deployment,
        check=lambda found: _show(found, "properties.outputs.scaleSetId.value"),
    )
    yield az("deployment operation group list", *deployment, check=_count)
    yield az("vmss list-instances -g az -n page1", check=lambda found: _names(found, "page1_0"))
    yield az("vmss delete -g az -n page1")
    yield az("deployment group delete", *deployment)
    create = ("vmss", "create", "-g", "az", "-n", "made", "--orchestration-mode", "Uniform")
    size = ("--instance-count", "1", "--vm-sku", "Lab_1_128", "--upgrade-policy-mode", "Manual")
    login = ("--admin-username", "lab", "--ssh-key-values", key)
    yield AzLine(
        words=(*create, "--image", tiny_id(stand.server), *size, *login),
        check=lambda found: _show(found["VMSS"], "provisioningState", "upgradePolicy"),
    )
    yield az("vmss show -g az -n made", check=lambda found: _show(found, "sku.capacity"))
    yield az("vmss list-instances -g az -n made", check=lambda found: _names(found, "made_0"))
    yield az("vmss delete -g az -n made")
    urn = ("--image", "labctl:tiny:default:latest", "--load-balancer", "")
    yield AzLine(
        words=(*create, *urn, *size, *login),
        check=lambda found: _show(found["VMSS"], "provisioningState"),
    )
    yield az("vmss delete -g az -n made")
    yield az("vmss list -g az", check=lambda found: _expect_equal(found, []))
    yield az("group delete -n az --yes")


def _that_are_refused(stand: Stand) -> Iterator[AzLine]:
    yield az(
        "vmss show -g",
        GROUP,
        "-n",
        "nowhere",
        expect=3,
        check=lambda said: _expect_text(said, "ResourceNotFound"),
    )
    yield az(
        "vmss list -g nowhere",
        expect=3,
        check=lambda said: _expect_text(said, "ResourceGroupNotFound"),
    )
    yield az(
        "vmss update --set virtualMachineProfile.storageProfile.imageReference.id=nonsense -g",
        GROUP,
        "-n",
        SET,
        expect=1,
        check=lambda said: _expect_text(said, "("),
    )


def _find(found: Json, path: str) -> Json:
    for name in path.split("."):
        found = found[name]
    return found


def _show(found: Json, *paths: str, expected: Json = None) -> str:
    """What is at these places; `expected` must be one of it."""
    values = {path: _find(found, path) for path in paths}
    assert expected is None or expected in values.values(), f"no {expected!r} in {values}"
    return ", ".join(f"{path} = {value}" for path, value in values.items())


def _names(found: Json, *expected: str) -> str:
    names = [each["name"] for each in found]
    missing = {name.lower() for name in expected} - {name.lower() for name in names}
    assert not missing, f"{sorted(missing)} not in {names}"
    return ", ".join(names)


def _count(found: Json) -> str:
    assert found, "an empty list"
    return f"{len(found)} of them"


def _expect_text(said: str, part: str) -> str:
    assert part in said, f"{part!r} was not said"
    return said.strip()


def _expect_equal(found: Json, expected: Json) -> str:
    assert found == expected, f"{found}, not {expected}"
    return f"{found}"


def _see_automatic(found: Json) -> str:
    path = "upgradePolicy.automaticOSUpgradePolicy.enableAutomaticOSUpgrade"
    assert _find(found, path) is True, found["upgradePolicy"]
    return _show(found, path)


def _see_not_automatic(found: Json) -> str:
    path = "upgradePolicy.automaticOSUpgradePolicy.enableAutomaticOSUpgrade"
    assert not _find(found, path), found["upgradePolicy"]
    return _show(found, path)


def _see_one_view(found: Json) -> str:
    codes = [each["code"] for each in found["statuses"]]
    assert "PowerState/running" in codes, codes
    health = found["vmHealth"]["status"]["code"]
    assert health == "HealthState/healthy", health
    return f"{', '.join(codes)}, {health}"


def _see_views(found: Json) -> str:
    assert len(found) == 2, f"{len(found)} views"
    return "\n".join(_see_one_view(each.get("instanceView", each)) for each in found)


def _see_upgrade(found: Json, code: str = "") -> str:
    status = found["runningStatus"]
    assert code in {"", status["code"]}, f"{status}, {found.get('error')}"
    return f"{status['code']}, {found['progress']}"


def _see_history(found: Json) -> str:
    upgrades = [each["properties"] for each in found]
    assert len(upgrades) == 2, f"{len(upgrades)} upgrades"
    assert all(each["startedBy"] == "User" for each in upgrades)
    return "\n".join(
        f"{each['runningStatus']['code']} by {each['startedBy']}: {each['targetImageReference']}"
        for each in upgrades
    )


def _see_images(found: Json) -> str:
    urns = [each["urn"] for each in found]
    assert {"labctl:tiny:default:1.0.0", "labctl:tiny:default:1.1.0"} <= set(urns), urns
    return ", ".join(urns)


def _see_what_if(found: Json) -> str:
    changes = {
        each["resourceId"].rsplit("/", 1)[1]: each["changeType"] for each in found["changes"]
    }
    assert changes["page1"] == "Create", changes
    return f"{changes}"
