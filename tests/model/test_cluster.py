"""Cluster-managed scale sets: what they must have and must not."""

import pytest
from pydantic import ValidationError

from labctl.model.cluster import ClusterManager, DurabilityLevel
from labctl.model.health_source import ApplicationHealth, Health, HealthProbe
from labctl.model.hook import Hook, Hooks
from labctl.model.instance_policy import AutomaticRepairsPolicy
from labctl.model.machine import ImageReference
from labctl.model.setup import Extension
from labctl.model.spec import ScaleSetSpec
from labctl.model.upgrade_policy import AutomaticOsUpgradePolicy, UpgradeMode, UpgradePolicy

HOOKS = Hooks(drain=Hook(command=("cluster", "drain")), undrain=Hook(command=("cluster", "add")))
AUTOMATIC = UpgradePolicy(
    automatic_os_upgrade_policy=AutomaticOsUpgradePolicy(enable_automatic_os_upgrade=True),
    hooks=HOOKS,
)


def make_cluster(level="Silver", *, settings=None, **changes):
    agent = Extension(
        name="agent", script="true", settings={"durabilityLevel": level} | (settings or {})
    )
    values = {
        "name": "web",
        "capacity": 3,
        "image": ImageReference(definition="tiny"),
        "extensions": (agent,),
        "cluster_manager": ClusterManager(durability_level=level, extension="agent"),
        "upgrade_policy": UpgradePolicy(hooks=HOOKS),
    }
    return ScaleSetSpec(**(values | changes))


@pytest.mark.parametrize("level", ["Silver", "Gold"])
def test_silver_and_gold_take_automatic_upgrades_without_a_health_source(level):
    assert make_cluster(level, upgrade_policy=AUTOMATIC).cluster_manager.durability_level == level


def test_bronze_is_for_upgrades_that_somebody_starts_and_tells_the_cluster_nothing():
    manager = make_cluster("Bronze", upgrade_policy=UpgradePolicy()).cluster_manager
    assert manager.durability_level is DurabilityLevel.BRONZE


def test_application_health_may_be_used_beside():
    health = Health(application_health=ApplicationHealth(port=80, request_path="/"))
    assert make_cluster(health=health, upgrade_policy=AUTOMATIC).health == health


def test_it_is_the_same_after_the_store():
    spec = make_cluster(zones=("1", "2"))
    assert ScaleSetSpec.model_validate_json(spec.model_dump_json()) == spec


PROBE = Health(probe=HealthProbe(request_path="/"))
AGENT = Health(application_health=ApplicationHealth(port=80, request_path="/"))
BROKEN = {
    "Bronze": ("for enableAutomaticOSUpgrade, not 'Bronze'", "Bronze", AUTOMATIC, {}),
    "another level": ("must be 'Gold', as clusterManager", "Gold", AUTOMATIC, {"level": "Silver"}),
    "a level in other letters": ("not 'gold'", "Gold", AUTOMATIC, {"level": "gold"}),
    "probe": ("use applicationHealth", "Silver", AUTOMATIC, {"health": PROBE}),
    "repairs": (
        "the cluster repairs them itself",
        "Silver",
        AUTOMATIC,
        {"health": AGENT, "automatic_repairs_policy": AutomaticRepairsPolicy(enabled=True)},
    ),
    "no extension": ("there is no extension 'agent'; there are none", "Gold", AUTOMATIC, {"x": ()}),
    "other extensions": (
        "there is no extension 'agent'; there are: app",
        "Gold",
        AUTOMATIC,
        {"x": (Extension(name="app", script="true"),)},
    ),
    "no level in the extension": (
        "needs durabilityLevel: Gold, as clusterManager has it",
        "Gold",
        AUTOMATIC,
        {"x": (Extension(name="agent", script="true"),)},
    ),
    "rolling models without health": (
        "'Rolling' needs health.applicationHealth",
        "Gold",
        UpgradePolicy(mode=UpgradeMode.ROLLING, hooks=HOOKS),
        {},
    ),
    "no undrain": (
        "'Gold' needs upgradePolicy.hooks.drain and .undrain",
        "Gold",
        UpgradePolicy(hooks=Hooks(drain=Hook(command=("cluster", "drain")))),
        {},
    ),
    "no drain": (
        "'Silver' needs upgradePolicy.hooks.drain and .undrain",
        "Silver",
        UpgradePolicy(hooks=Hooks(undrain=Hook(command=("cluster", "add")))),
        {},
    ),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_broken_rules_are_refused(rule):
    reason, level, policy, changes = BROKEN[rule]
    changes = dict(changes)
    other = changes.pop("level", None)
    if "x" in changes:
        changes["extensions"] = changes.pop("x")
    with pytest.raises(ValidationError, match=reason):
        make_cluster(
            level,
            settings={"durabilityLevel": other} if other else None,
            upgrade_policy=policy,
            **changes,
        )


def test_without_a_manager_automatic_upgrades_need_a_health_source():
    with pytest.raises(ValidationError, match="needs health"):
        make_cluster(cluster_manager=None, upgrade_policy=AUTOMATIC)
