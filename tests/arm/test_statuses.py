from datetime import UTC, datetime, timedelta, timezone

from labctl.arm.instance_views import make_extension_status
from labctl.arm.statuses import (
    ProvisioningState,
    format_moment,
    make_provisioning_status,
    summarize,
)
from labctl.model.instance import ExtensionRun

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def run(exit_code, *, finished_at=NOW, output="first\nlast\n"):
    return ExtensionRun(
        name="x", started_at=NOW, finished_at=finished_at, exit_code=exit_code, output=output
    )


def test_moments_are_in_utc_with_a_z():
    there = NOW.astimezone(timezone(timedelta(hours=2)))
    assert format_moment(there) == "2026-11-23T12:00:00Z"


def test_each_state_of_provisioning_has_its_code():
    codes = {state: make_provisioning_status(state).code for state in ProvisioningState}
    assert codes[ProvisioningState.SUCCEEDED] == "ProvisioningState/succeeded"
    assert codes[ProvisioningState.FAILED] == "ProvisioningState/failed"
    assert codes[ProvisioningState.UPDATING] == "ProvisioningState/updating"


def test_codes_are_counted_in_the_order_of_their_first():
    assert summarize(["b", "a", "b"]) == [{"code": "b", "count": 2}, {"code": "a", "count": 1}]


def test_an_extension_tells_how_its_latest_run_went():
    found = [
        make_extension_status(each).document
        for each in (None, run(None, finished_at=None), run(0), run(3), run(None))
    ]
    assert [each["code"] for each in found] == [
        "ProvisioningState/creating",
        "ProvisioningState/transitioning",
        "ProvisioningState/succeeded",
        "ProvisioningState/failed/3",
        "ProvisioningState/failed",
    ]
    assert found[3]["message"] == "ended with exit code 3\nfirst\nlast"
    assert found[4]["message"].startswith("did not end")


def test_only_the_end_of_a_long_output_is_told():
    message = make_extension_status(run(0, output="x" * 9000 + "end")).message
    assert len(message) == 2000
    assert message.endswith("end")
