"""Who takes part in an upgrade that starts now."""

from labctl.model.custom_metrics import UpgradeWish, read_upgrade_wish
from labctl.model.instance import Wanted
from labctl.model.plan import ScaleSet
from labctl.model.upgrade import Member
from labctl.planner.health import judge
from labctl.planner.situation import Situation, survey


def make_members(scale_set: ScaleSet) -> tuple[Member, ...]:
    """Everybody who takes part in an upgrade that starts now, by ordinal.

    Custom metrics are read here, once: what applications tell later is for the next upgrade.
    """
    return tuple(
        _make_member(situation)
        for situation in survey(scale_set)
        if situation.instance.wanted is not Wanted.DELETED
    )


def asks_to_be_skipped(situation: Situation) -> bool:
    """Would an upgrade that starts now leave it alone, because its application wants that?"""
    return _read_wish(situation).skips


def _read_wish(situation: Situation) -> UpgradeWish:
    source = situation.model.health.application_health
    is_told = source is not None and source.is_rich
    return read_upgrade_wish(situation.instance.health.custom_metrics) if is_told else UpgradeWish()


def _make_member(situation: Situation) -> Member:
    instance, wish = situation.instance, _read_wish(situation)
    return Member(
        instance=instance.name,
        ordinal=instance.ordinal,
        from_version=instance.current.image_version,
        # Only a healthy one has a place in the order; to leave one alone never needs its health.
        phase=wish.phase if judge(situation).is_healthy else None,
        skips_upgrade=wish.skips,
    )
