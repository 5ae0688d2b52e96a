"""Where an instance belongs: its zone and domains, by the spec and its ordinal alone."""

from dataclasses import dataclass

from labctl.model.spec import ScaleSetSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The zone of an instance and, within the zone, its fault domain and update domain."""

    zone: str | None  # None: the scale set has no zones
    zone_number: int  # the place of its zone in the spec, from 0
    fault_domain: int
    update_domain: int

    @property
    def text(self) -> str:
        """For people."""
        zone = "" if self.zone is None else f"zone {self.zone}, "
        return f"{zone}fault domain {self.fault_domain}, update domain {self.update_domain}"


def place(spec: ScaleSetSpec, ordinal: int) -> Placement:
    """Zones in turn by ordinal; the instances of a zone in turn over its domains of either kind."""
    # Zones a and b, 2 fault domains, 3 update domains: web_0 is in a/0/0, web_1 in b/0/0, web_2 in
    # a/1/1, web_3 in b/1/1, web_4 in a/0/2. So the first few of any number are spread evenly over
    # zones, over fault domains and over update domains; domains nested in one another would put
    # the first instances of a zone into one update domain.
    count = max(1, len(spec.zones))
    number, turn = ordinal % count, ordinal // count
    return Placement(
        zone=spec.zones[number] if spec.zones else None,
        zone_number=number,
        fault_domain=turn % spec.fault_domain_count,
        update_domain=turn % spec.update_domain_count,
    )


def find_spot(spec: ScaleSetSpec, ordinal: int) -> tuple[int, ...]:
    """What two ordinals must have in common to stand in for one another; equal where they can."""
    # Update domains count only where they order upgrades: there is always more than one of them.
    where = place(spec, ordinal)
    managed = () if spec.cluster_manager is None else (where.update_domain,)
    return (where.zone_number, where.fault_domain, *managed)


def is_placed(spec: ScaleSetSpec) -> bool:
    """Do places matter in this scale set?"""
    return bool(spec.zones) or spec.fault_domain_count > 1 or spec.cluster_manager is not None
