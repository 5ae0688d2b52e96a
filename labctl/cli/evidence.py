"""The evidence of an instance that failed, for people."""

from typing import Any


def print_evidence(instance: str, found: dict[str, Any]) -> None:
    """Print what was saved of one instance."""
    print(f"\n{instance} failed at {found['rung']}: {found['reason']}")
    print(f"  image {found['imageVersion']}, OS disk {found['generation']}, {found['power']}")
    print("  serial console, last lines:")
    for line in found["serialTail"][-20:]:
        print(f"    {line}")
    print("  custom data:")
    for line in found["customData"].strip().splitlines()[-12:]:
        print(f"    {line}")
    for run in found["extensions"]:
        print(f"  extension {run['name']!r}: exit code {run['exitCode']}")
        for line in run["output"].strip().splitlines()[-6:]:
            print(f"    {line}")
    print("  health answers:")
    for sample in found["healthSamples"][-5:]:
        print(f"    {sample['at']}  {sample['state']}  {sample['detail']}")
