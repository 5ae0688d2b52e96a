"""Which instances a batch may take together, as far as zones and update domains decide."""

from collections.abc import Sequence
from dataclasses import dataclass

from labctl.model.upgrade import Upgrade
from labctl.planner.situation import Situation


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """Instances whose places let them go together; lanes go one after the other, by `rank`."""

    rank: tuple[int, int]
    zone: str | None = None  # None: there are none, or batches may span them
    update_domain: int | None = None  # None: not a cluster-managed scale set

    @property
    def text(self) -> str:
        """To follow a reason; empty where places decide nothing."""
        zone = "" if self.zone is None else f", zone {self.zone}"
        domain = "" if self.update_domain is None else f", update domain {self.update_domain}"
        return f"{zone}{domain}"


def find_lane(situation: Situation, upgrade: Upgrade) -> Lane:
    """Zone by zone in the order of the spec; in cluster-managed sets by update domain, too."""
    # Zones a and b, cluster-managed: a/0, a/1, ... a/4, b/0, ... With enableCrossZoneUpgrade the
    # zones go side by side: update domain 0 of a and b, then 1 of both.
    placement, spec = situation.placement, situation.newest
    is_zonal = bool(spec.zones) and not upgrade.policy.enable_cross_zone_upgrade
    is_managed = spec.cluster_manager is not None
    return Lane(
        rank=(
            placement.zone_number if is_zonal else 0,
            placement.update_domain if is_managed else 0,
        ),
        zone=placement.zone if is_zonal else None,
        update_domain=placement.update_domain if is_managed else None,
    )


def bound_in_zone(limit: int, counted: Sequence[Situation], upgrade: Upgrade) -> int:
    """`limit`, or less: within one zone, no more than the share of one update domain."""
    # 20 instances, 3 zones, 5 update domains, 50 %: 10 by percentage, 7 in the zone, but 4 by this.
    # The share is that of the whole scale set, so that 5 domains are the same as the 20 % that hold
    # by default; of the 7 in the zone it would be 2, and the upgrade would take twice as long.
    if not counted or find_lane(counted[0], upgrade).zone is None:
        return limit
    return min(limit, -(-len(counted) // counted[0].newest.update_domain_count))
