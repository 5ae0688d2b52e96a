"""What `labctl image watch` tells."""

from types import SimpleNamespace

from labctl.cli.rollout import _describe


def test_a_scale_set_without_instances_runs_nothing():
    decision = SimpleNamespace(until=None, reason="capacity is 0")
    forecast = SimpleNamespace(
        scale_set="web", region="local", decision=decision, offer=None, passed=()
    )
    row = _describe(forecast, "")
    assert (row["runs"], row["latest"], row["takes"], row["when"]) == (None,) * 4
