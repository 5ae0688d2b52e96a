"""Bodies as Azure's clients send them, for scale sets of tiny instances."""

from base64 import b64encode
from typing import Any

Json = Any  # what json.loads gives

CUSTOM_DATA = b64encode(b"#!/bin/sh\necho custom data ran >/var/log/custom-data\n").decode()
LAB_IMAGE = {"publisher": "labctl", "offer": "tiny", "sku": "default", "version": "latest"}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBlpGXUlxdXeCTWotE5v2uxnuXegb7uTZvHDbOqZNxj4 somebody"
HEALTH = {
    "name": "HealthExtension",
    "properties": {
        "publisher": "Microsoft.ManagedServices",
        "type": "ApplicationHealthLinux",
        "typeHandlerVersion": "1.0",
        "autoUpgradeMinorVersion": True,
        "settings": {"protocol": "http", "port": 8080, "requestPath": "/health"},
    },
}


def make_scale_set(
    *,
    capacity: int = 2,
    image: Json | None = None,
    key: str = KEY,
    is_automatic: bool = False,
    data_disks: Json = ({"lun": 0, "createOption": "Empty", "diskSizeGB": 1},),
) -> dict[str, Json]:
    """A scale set that knows health, data disks, custom data and automatic upgrades."""
    return {
        "location": "local",
        "tags": {"purpose": "test"},
        "sku": {"name": "Lab_1_128", "tier": "Standard", "capacity": capacity},
        "properties": {
            "overprovision": False,
            "singlePlacementGroup": True,
            "orchestrationMode": "Uniform",
            "upgradePolicy": {
                "mode": "Manual",
                "automaticOSUpgradePolicy": {
                    "enableAutomaticOSUpgrade": is_automatic,
                    "disableAutomaticRollback": False,
                    "useRollingUpgradePolicy": True,
                },
                "rollingUpgradePolicy": {
                    "maxBatchInstancePercent": 50,
                    "maxUnhealthyInstancePercent": 100,
                    "maxUnhealthyUpgradedInstancePercent": 20,
                    "pauseTimeBetweenBatches": "PT0S",
                },
            },
            "virtualMachineProfile": {
                "osProfile": {
                    "computerNamePrefix": "web",
                    "adminUsername": "lab",
                    "customData": CUSTOM_DATA,
                    "linuxConfiguration": {
                        "disablePasswordAuthentication": True,
                        "ssh": {
                            "publicKeys": [
                                {"path": "/home/lab/.ssh/authorized_keys", "keyData": key}
                            ]
                        },
                    },
                },
                "storageProfile": {
                    "imageReference": image or LAB_IMAGE,
                    "osDisk": {"createOption": "FromImage", "caching": "ReadWrite"},
                    "dataDisks": list(data_disks),
                },
                "extensionProfile": {"extensions": [HEALTH]},
            },
        },
    }
