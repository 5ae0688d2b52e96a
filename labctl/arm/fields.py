"""What a lab does with each property of a scale set; this table is what reading goes by.

A property that no row names is kept and given back: it is new to labctl, and clients that know it
see what they sent. Groups that change how safe an instance is or how it behaves have rows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

P = "properties."
VM = f"{P}virtualMachineProfile."
OS = f"{VM}osProfile."
STORAGE = f"{VM}storageProfile."
IMAGE = f"{STORAGE}imageReference"
EXTENSIONS = f"{VM}extensionProfile.extensions[]"
UPGRADE = f"{P}upgradePolicy."
ROLLING = f"{UPGRADE}rollingUpgradePolicy."
AUTOMATIC = f"{UPGRADE}automaticOSUpgradePolicy."


class Treatment(StrEnum):
    """What becomes of a property."""

    MODEL = "model"  # part of the spec; what the YAML says is shown here, too
    KEPT = "kept"  # given back as it came; changes nothing
    IGNORED = "ignored"  # neither used nor kept
    REFUSED = "refused"  # NotSupportedInLab: to accept it would be silently wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One property, by its JSON path."""

    path: str
    treatment: Treatment
    why: str  # one sentence
    harmless: tuple[object, ...] = ()  # of REFUSED: values that say what a lab does anyway


def _model(path: str, why: str) -> Field:
    return Field(path=path, treatment=Treatment.MODEL, why=why)


def _kept(path: str, why: str) -> Field:
    return Field(path=path, treatment=Treatment.KEPT, why=why)


def _ignored(path: str, why: str) -> Field:
    return Field(path=path, treatment=Treatment.IGNORED, why=why)


def _refused(path: str, why: str, *, harmless: tuple[object, ...] = ()) -> Field:
    return Field(path=path, treatment=Treatment.REFUSED, why=why, harmless=harmless)


FIELDS: tuple[Field, ...] = (
    _ignored("id", "Told by the path of the request."),
    _model("name", "`name`, in lower case."),
    _ignored("type", "Always Microsoft.Compute/virtualMachineScaleSets."),
    _ignored("apiVersion", "Of templates; any well-formed one is taken."),
    _ignored("etag", "Told by the lab; If-Match compares it."),
    _ignored("systemData", "Read-only."),
    _model("location", "`region`, in lower case and without blanks."),
    _kept("tags", "At most 50; a new object of tags takes the place of the old one."),
    _kept("plan", "A purchase on the marketplace; nothing is bought in a lab."),
    _refused("identity", "Instances of a lab get no managed identities."),
    _refused("extendedLocation", "A lab has no edge zones."),
    _model("zones", "`zones`."),
    _model("sku.name", "`size`: a well-known size of Azure, or `Lab_VCPUS_MIB`."),
    _model("sku.capacity", "`capacity`."),
    _kept("sku.tier", "Has no meaning of its own."),
    _refused(
        f"{P}orchestrationMode", "Flexible scale sets do not exist in a lab.", harmless=("Uniform",)
    ),
    _ignored(f"{P}provisioningState", "Read-only."),
    _ignored(f"{P}uniqueId", "Read-only."),
    _ignored(f"{P}timeCreated", "Read-only."),
    _kept(f"{P}overprovision", "A lab makes exactly as many instances as it is told to."),
    _kept(f"{P}singlePlacementGroup", "A lab has no placement groups and no limit by them."),
    _kept(f"{P}zoneBalance", "Instances are always spread evenly over zones."),
    _model(f"{P}platformFaultDomainCount", "`faultDomainCount`."),
    _model(f"{UPGRADE}mode", "`upgradePolicy.mode`."),
    _model(f"{ROLLING}maxBatchInstancePercent", "The same in YAML."),
    _model(f"{ROLLING}maxUnhealthyInstancePercent", "The same in YAML."),
    _model(f"{ROLLING}maxUnhealthyUpgradedInstancePercent", "The same in YAML."),
    _model(f"{ROLLING}pauseTimeBetweenBatches", "The same in YAML; ISO 8601 here."),
    _model(f"{ROLLING}prioritizeUnhealthyInstances", "The same in YAML."),
    _model(f"{ROLLING}enableCrossZoneUpgrade", "The same in YAML."),
    _model(f"{ROLLING}maxSurge", "The same in YAML."),
    _model(f"{ROLLING}rollbackFailedInstancesOnPolicyBreach", "The same in YAML."),
    _model(f"{AUTOMATIC}enableAutomaticOSUpgrade", "The same in YAML."),
    _model(f"{AUTOMATIC}disableAutomaticRollback", "The same in YAML."),
    _model(
        f"{AUTOMATIC}useRollingUpgradePolicy",
        "The same in YAML; where it is absent it is false here, as in Azure, and true there.",
    ),
    _refused(
        f"{AUTOMATIC}osRollingUpgradeDeferral",
        "Guests are given no notice by an instance metadata service.",
        harmless=(False,),
    ),
    _model(f"{P}automaticRepairsPolicy.enabled", "The same in YAML."),
    _model(
        f"{P}automaticRepairsPolicy.gracePeriod",
        "The same in YAML, ISO 8601 here; from PT1S on, where Azure asks for PT10M.",
    ),
    _model(f"{P}automaticRepairsPolicy.repairAction", "The same in YAML."),
    _model(f"{P}scaleInPolicy.rules", "The same in YAML."),
    _kept(f"{P}scaleInPolicy.forceDeletion", "A lab knows one way to delete."),
    _kept(f"{P}doNotRunExtensionsOnOverprovisionedVMs", "A lab does not overprovision."),
    _kept(f"{P}proximityPlacementGroup", "All instances are near: they share a host."),
    _kept(f"{P}spotRestorePolicy", "Nothing is evicted from a lab."),
    _kept(f"{P}priorityMixPolicy", "Nothing is evicted from a lab."),
    _kept(f"{P}resiliencyPolicy", "A lab tries again by itself whatever fails to be made."),
    _kept(f"{P}additionalCapabilities.ultraSSDEnabled", "Disks are as fast as the host's."),
    _refused(
        f"{P}additionalCapabilities.hibernationEnabled",
        "Instances cannot hibernate.",
        harmless=(False,),
    ),
    _refused(f"{P}skuProfile", "All instances have one size, that of sku.name."),
    _refused(f"{P}hostGroup", "A lab has no dedicated hosts."),
    _refused(
        f"{P}lifecycleHooksProfile",
        "A lab has no lifecycle hook events; see upgradePolicy.approval in properties.labctl.",
    ),
    _refused(f"{P}scheduledEventsPolicy", "Guests get no scheduled events."),
    _refused(f"{P}externalHealthPolicy", "Health comes from the extension or from a probe."),
    _model(
        f"{P}labctl",
        "What Azure has no place for, strictly as in the YAML spec: see below.",
    ),
    _kept(f"{VM}priority", "Spot instances are never evicted."),
    _kept(f"{VM}evictionPolicy", "Nothing is evicted from a lab."),
    _kept(f"{VM}billingProfile", "Nothing is paid for in a lab."),
    _kept(f"{VM}licenseType", "Licences are between you and their owner."),
    _kept(f"{VM}diagnosticsProfile", "Serial logs are always kept."),
    _ignored(f"{VM}timeCreated", "Read-only."),
    _refused(f"{VM}userData", "There is no instance metadata service that would hand it out."),
    _refused(f"{VM}scheduledEventsProfile", "Guests get no scheduled events."),
    _refused(
        f"{VM}securityProfile.securityType",
        "Instances are no trusted or confidential VMs.",
        harmless=("Standard",),
    ),
    _refused(
        f"{VM}securityProfile.uefiSettings.secureBootEnabled",
        "There is no secure boot.",
        harmless=(False,),
    ),
    _refused(
        f"{VM}securityProfile.uefiSettings.vTpmEnabled", "Instances have no TPM.", harmless=(False,)
    ),
    _refused(
        f"{VM}securityProfile.encryptionAtHost", "The lab encrypts no disks.", harmless=(False,)
    ),
    _refused(f"{VM}securityProfile.encryptionIdentity", "The lab encrypts no disks."),
    _refused(f"{VM}securityProfile.proxyAgentSettings", "There is no proxy agent in the guest."),
    _refused(f"{VM}securityPostureReference", "No extensions are added by a security posture."),
    _refused(f"{VM}serviceArtifactReference", "A lab has no service artifacts."),
    _refused(f"{VM}hardwareProfile", "The size alone tells vCPUs and memory."),
    _refused(f"{VM}capacityReservation", "A lab cannot reserve capacity."),
    _refused(f"{VM}applicationProfile", "A lab has no gallery applications."),
    _kept(f"{OS}computerNamePrefix", "Host names are those of instances: NAME-0, NAME-1."),
    _kept(f"{OS}adminUsername", "The user is the one that the image and labctl agree on."),
    _ignored(
        f"{OS}adminPassword",
        "Refused for Linux; for Windows, where clients must send one, forgotten: keys log in.",
    ),
    _kept(f"{OS}allowExtensionOperations", "Extensions are run by labctl over SSH."),
    _kept(f"{OS}requireGuestProvisionSignal", "labctl waits for SSH and custom data anyway."),
    _model(f"{OS}customData", "`customData.inline`, base64 of UTF-8 text; never given back."),
    _refused(f"{OS}secrets", "There is no key vault to take certificates from.", harmless=([],)),
    _model(f"{OS}linuxConfiguration.ssh.publicKeys[].keyData", "`sshKeys`."),
    _kept(f"{OS}linuxConfiguration.ssh.publicKeys[].path", "Keys go to the user of the image."),
    _refused(
        f"{OS}linuxConfiguration.disablePasswordAuthentication",
        "labctl sets no passwords.",
        harmless=(True,),
    ),
    _kept(f"{OS}linuxConfiguration.provisionVMAgent", "labctl needs no agent of Azure's."),
    _kept(f"{OS}linuxConfiguration.enableVMAgentPlatformUpdates", "There is no such agent."),
    _refused(
        f"{OS}linuxConfiguration.patchSettings.patchMode",
        "The platform patches no guests; images do.",
        harmless=("ImageDefault",),
    ),
    _model(
        f"{OS}windowsConfiguration.enableAutomaticUpdates",
        "`windowsConfiguration.enableAutomaticUpdates`.",
    ),
    _kept(f"{OS}windowsConfiguration.provisionVMAgent", "labctl needs no agent of Azure's."),
    _kept(f"{OS}windowsConfiguration.enableVMAgentPlatformUpdates", "There is no such agent."),
    _refused(f"{OS}windowsConfiguration.timeZone", "The image's time zone holds."),
    _refused(f"{OS}windowsConfiguration.additionalUnattendContent", "Images are set up already."),
    _refused(f"{OS}windowsConfiguration.winRM", "labctl speaks SSH with Windows, too."),
    _refused(
        f"{OS}windowsConfiguration.patchSettings.patchMode",
        "The platform patches no guests.",
        harmless=(
            "AutomaticByOS",
            "Manual",
        ),
    ),
    _model(f"{IMAGE}.id", "`image`: a gallery's image definition, or one version of it."),
    _model(f"{IMAGE}.publisher", "`image`, with offer and sku: a platform image."),
    _model(f"{IMAGE}.offer", "See publisher."),
    _model(f"{IMAGE}.sku", "See publisher."),
    _model(f"{IMAGE}.version", "`image.version`."),
    _ignored(f"{IMAGE}.exactVersion", "Read-only."),
    _refused(f"{IMAGE}.sharedGalleryImageId", "Galleries of others are out of reach."),
    _refused(f"{IMAGE}.communityGalleryImageId", "Galleries of others are out of reach."),
    _model(f"{STORAGE}osDisk.diskSizeGB", "`osDisk.size`, as GiB rounded up."),
    _refused(
        f"{STORAGE}osDisk.createOption", "OS disks are made from images.", harmless=("FromImage",)
    ),
    _ignored(f"{STORAGE}osDisk.osType", "The image tells."),
    _kept(f"{STORAGE}osDisk.caching", "The host caches as it does for every disk."),
    _kept(f"{STORAGE}osDisk.diffDiskSettings", "OS disks are local in any case."),
    _refused(f"{STORAGE}osDisk.managedDisk.diskEncryptionSet", "The lab encrypts no disks."),
    _refused(f"{STORAGE}osDisk.managedDisk.securityProfile", "The lab encrypts no disks."),
    _refused(f"{STORAGE}osDisk.image", "Images come from galleries, not from URLs."),
    _refused(f"{STORAGE}osDisk.vhdContainers", "Disks are files on the lab's host."),
    _model(f"{STORAGE}dataDisks[].lun", "The order of `dataDisks`."),
    _model(f"{STORAGE}dataDisks[].name", "`dataDisks[].name`; `lunN` where it is absent."),
    _model(f"{STORAGE}dataDisks[].diskSizeGB", "`dataDisks[].size`, as GiB rounded up."),
    _refused(f"{STORAGE}dataDisks[].createOption", "Data disks begin empty.", harmless=("Empty",)),
    _refused(f"{STORAGE}dataDisks[].managedDisk.diskEncryptionSet", "The lab encrypts no disks."),
    _refused(f"{STORAGE}dataDisks[].managedDisk.securityProfile", "The lab encrypts no disks."),
    _refused(
        f"{STORAGE}dataDisks[].deleteOption",
        "Data disks outlive their instances.",
        harmless=("Detach",),
    ),
    _kept(f"{STORAGE}dataDisks[].caching", "The host caches as it does for every disk."),
    _model(f"{VM}networkProfile.healthProbe.id", "`health.probe`, unless an extension tells."),
    _kept(
        f"{VM}networkProfile.networkInterfaceConfigurations",
        "Instances have one interface; `network` says how it is joined.",
    ),
    _kept(f"{VM}networkProfile.networkApiVersion", "Has no meaning in a lab."),
    _model(f"{VM}extensionProfile.extensionsTimeBudget", "`extensionsTimeBudget`."),
    _model(f"{EXTENSIONS}.name", "`extensions[].name`; of the health extension only kept."),
    _model(f"{EXTENSIONS}.properties.publisher", "Which kind it is: see below."),
    _model(f"{EXTENSIONS}.properties.type", "Which kind it is: see below."),
    _model(
        f"{EXTENSIONS}.properties.typeHandlerVersion",
        "Of the health extension: 1.0 is binary, 2.0 is rich; else kept.",
    ),
    _model(f"{EXTENSIONS}.properties.settings", "The script or probe, and public settings."),
    _model(f"{EXTENSIONS}.properties.protectedSettings", "The same; never given back."),
    _refused(f"{EXTENSIONS}.properties.protectedSettingsFromKeyVault", "There is no key vault."),
    _model(f"{EXTENSIONS}.properties.provisionAfterExtensions", "The same in YAML."),
    _model(f"{EXTENSIONS}.properties.suppressFailures", "The same in YAML."),
    _model(f"{EXTENSIONS}.properties.forceUpdateTag", "The same in YAML."),
    _kept(f"{EXTENSIONS}.properties.autoUpgradeMinorVersion", "The script is the version."),
    _refused(
        f"{EXTENSIONS}.properties.enableAutomaticUpgrade",
        "Extensions are scripts of yours; nobody publishes newer ones.",
        harmless=(False,),
    ),
    _ignored(f"{EXTENSIONS}.properties.provisioningState", "Read-only."),
)


@dataclass(slots=True)
class Node:
    """A place in documents: what is said of it, and what may stand below it."""

    name: str = ""
    row: Field | None = None
    below: dict[str, "Node"] = field(default_factory=dict)  # by name in lower case; "[]": items


def _plant(fields: tuple[Field, ...]) -> Node:
    root = Node()
    for row in fields:
        node = root
        for step in row.path.replace("[]", ".[]").split("."):
            node = node.below.setdefault(step.lower(), Node(name=step))
        node.row = row
    return root


ROOT = _plant(FIELDS)


def find_node(path: str) -> Node:
    """The place that a path such as `zones` or `...dataDisks[]` leads to."""
    node = ROOT
    for step in path.replace("[]", ".[]").split("."):
        node = node.below[step.lower()]
    return node


def list_rows() -> Iterator[str]:
    """The table of the README, row by row."""
    for row in FIELDS:
        harmless = ", ".join(_json(value) for value in row.harmless)
        treatment = f"{row.treatment} unless {harmless}" if harmless else str(row.treatment)
        yield f"| `{row.path}` | {treatment} | {row.why} |"


def _json(value: object) -> str:
    names: Mapping[object, str] = {True: "`true`", False: "`false`"}
    if isinstance(value, bool):
        return names[value]
    return "`[]`" if isinstance(value, list) else f"`{value}`"
