"""Names of sizes."""

import pytest

from labctl.arm.sizes import AZURE_SIZES, find_size, name_size
from labctl.model.machine import GIB, MIB, MachineSize


@pytest.mark.parametrize(
    ("name", "vcpus", "memory"),
    [
        ("Standard_B1s", 1, GIB),
        ("standard_b1LS", 1, GIB // 2),
        ("Standard_DS1_v2", 1, 7 * GIB // 2),
        ("Standard_D4s_v5", 4, 16 * GIB),
        ("Standard_F8s_v2", 8, 16 * GIB),
        ("lab_3_100", 3, 100 * MIB),
    ],
)
def test_well_known_names_mean_what_azure_says(name, vcpus, memory):
    size = find_size(name)
    assert size is not None
    assert (size.vcpus, size.memory) == (vcpus, memory)


@pytest.mark.parametrize("name", ["", "Standard_", "Lab_0_1", "Lab_1", "Lab_1_1_1", "Lab_1_1e3"])
def test_other_names_mean_nothing(name):
    assert find_size(name) is None


def test_every_known_size_can_be_had():
    for size in AZURE_SIZES.values():
        given = {"vcpus": size.vcpus, "memory": f"{size.memory}B"}
        assert MachineSize.model_validate(given, by_name=False) == size


def test_a_kept_name_counts_while_it_means_the_size():
    size = MachineSize(vcpus=1, memory="1GiB")
    assert name_size(size) == "Lab_1_1024"
    assert name_size(size, "Standard_B1s") == "Standard_B1s"
    assert name_size(size, "Standard_B2s") == "Lab_1_1024"
    assert name_size(size, ["x"]) == "Lab_1_1024"
