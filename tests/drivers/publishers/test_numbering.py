import pytest

from labctl.drivers.publishers.failure import PublisherError
from labctl.drivers.publishers.numbering import dated, number, ordered
from labctl.model.image import VersionNumber
from labctl.model.publisher import Architecture, PublishedVersion


def test_a_build_is_numbered_by_its_day_and_its_number_on_that_day():
    assert str(dated(24, 4, "20260826")) == "24.4.2026082600"
    assert str(dated(24, 4, "20260826.1")) == "24.4.2026082601"
    assert str(dated(9, 5, "20241118.0")) == "9.5.2024111800"


def test_builds_order_as_they_were_made():
    builds = ("20260826", "20260826.1", "20260826.2", "20260826.10", "20260827", "20261001.1")
    numbers = [dated(24, 4, build) for build in builds]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == len(builds)


def test_all_parts_fit_for_the_next_hundred_years():
    assert dated(24, 4, "21261231.99") == VersionNumber(24, 4, 2126123199)
    assert dated(24, 4, "21481231.99") is None


@pytest.mark.parametrize("build", ["latest", "current", "20261340", "20260826.100", "2026", "beta"])
def test_other_names_have_no_number(build):
    assert dated(24, 4, build) is None


def test_a_part_that_is_too_large_has_no_number():
    assert number(1, 2, 2**31 - 1) is not None
    assert number(1, 2, 2**31) is None


def test_two_builds_with_one_number_are_a_fault_of_the_index():
    one, other = (
        PublishedVersion(
            version=VersionNumber(1, 0, 0),
            build=name,
            url=f"https://x/{name}",
            architecture=Architecture.X86_64,
            checksum=None,
        )
        for name in ("a", "b")
    )
    with pytest.raises(PublisherError, match="cannot be understood") as caught:
        ordered("rocky", "https://x/", [one, other])
    assert "a and b are both 1.0.0" in caught.value.detail
