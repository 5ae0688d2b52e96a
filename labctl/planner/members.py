"""Who takes part in an upgrade that starts now."""

from labctl.model.instance import Wanted
from labctl.model.plan import ScaleSet
from labctl.model.upgrade import Member


def make_members(scale_set: ScaleSet) -> tuple[Member, ...]:
    """Everybody who takes part in an upgrade that starts now, by ordinal."""
    return tuple(
        Member(instance=i.name, ordinal=i.ordinal, from_version=i.current.image_version)
        for i in sorted(scale_set.instances, key=lambda i: i.ordinal)
        if i.wanted is not Wanted.DELETED
    )
