"""Stories of zones, update domains and clusters; part of `stories.py`."""

from collections.abc import Callable
from dataclasses import replace

from tests.planner.happenings import restart, scale
from tests.planner.world import (
    PlanFunction,
    Script,
    World,
    make_cluster_managed,
    make_policy,
    make_set,
    make_spec,
    upgrading,
)

ZONES = ("1", "2", "3")


def twenty_in_three_zones(plan: PlanFunction) -> World:
    return World(scale_set=upgrading(make_set(20, spec=make_spec(20, zones=ZONES))), plan=plan)


def twenty_across_three_zones(plan: PlanFunction) -> World:
    policy = make_policy(enable_cross_zone_upgrade=True)
    spec = make_spec(20, zones=ZONES, upgrade_policy=policy)
    return World(scale_set=upgrading(make_set(20, spec=spec)), plan=plan)


def zone_waits_for_who_is_restarted_in_the_one_before(plan: PlanFunction) -> World:
    """Half of the set may go at once, but a zone only by the share of an update domain."""
    policy = make_policy(max_batch_instance_percent=50)
    spec = make_spec(6, zones=ZONES[:2], update_domain_count=3, upgrade_policy=policy)
    script = Script(health=lambda name, version, generation: 30)
    world = World(scale_set=upgrading(make_set(6, spec=spec)), script=script, plan=plan)
    world.at(50, "the user restarts web_4", restart("web_4"))
    return world


def cluster_by_five_update_domains(plan: PlanFunction) -> World:
    """Twelve instances: at most two at once, and domains of three and of two."""
    spec = make_spec(12, **make_cluster_managed())
    return World(scale_set=upgrading(make_set(12, spec=spec)), plan=plan)


def cluster_stops_in_a_bad_update_domain(plan: PlanFunction) -> World:
    """web_1 and web_6 share update domain 1; what fails there spares the domains behind it."""
    policy = make_policy(max_unhealthy_upgraded_instance_percent=0)
    spec = make_spec(10, upgrade_policy=policy, **make_cluster_managed())
    script = Script(boots=lambda name, version, generation: (name, generation) != ("web_6", 2))
    return World(scale_set=upgrading(make_set(10, spec=spec)), script=script, plan=plan)


def scale_in_balances_zones(plan: PlanFunction) -> World:
    """Zone 1 has web_0, web_3, web_6; two of them are protected."""
    scale_set = make_set(8, spec=make_spec(8, zones=ZONES, fault_domain_count=2))
    protected = tuple(
        replace(i, protect_from_scale_in=i.ordinal in {3, 6}) for i in scale_set.instances
    )
    world = World(scale_set=replace(scale_set, instances=protected), plan=plan)
    world.at(6, "the user scales in to 5", scale(5))
    world.at(60, "the user scales out to 7", scale(7))
    return world


PLACEMENT_STORIES: tuple[Callable[[PlanFunction], World], ...] = (
    twenty_in_three_zones,
    twenty_across_three_zones,
    zone_waits_for_who_is_restarted_in_the_one_before,
    cluster_by_five_update_domains,
    cluster_stops_in_a_bad_update_domain,
    scale_in_balances_zones,
)
