"""Which instances a body names."""

from collections.abc import Mapping, Sequence
from typing import Any

from labctl.api.scale_set_ids import FoundSet, read_ordinal
from labctl.arm.errors import invalid
from labctl.model.instance import Instance, Wanted

Json = Any  # what json.loads gives

_LONGEST_LIST = 2000  # ids; a scale set has at most 1000 instances


def read_instance_ids(
    body: Mapping[str, Json], found: FoundSet, instances: Sequence[Instance]
) -> list[str] | None:
    """The names of the instances that a body means; None: it names none, or all by "*".

    Raises ArmError, before any change, for one that is not there.
    """
    given = body.get("instanceIds")
    if given is None or names_all(body):
        return None
    if not isinstance(given, list) or len(given) > _LONGEST_LIST:
        raise invalid(
            f"'instanceIds' must be an array of at most {_LONGEST_LIST} texts.",
            target="instanceIds",
        )
    names = {instance.ordinal: instance.name for instance in instances}
    chosen: list[str] = []
    for each in given:
        ordinal = read_ordinal(each, found.name) if isinstance(each, str) else None
        if ordinal is None or ordinal not in names:
            raise invalid(
                f"The provided instanceId {str(each)[:60]!r} is not an active Virtual Machine "
                "Scale Set VM instanceId.",
                target="instanceIds",
            )
        chosen.append(names[ordinal])
    return list(dict.fromkeys(chosen))


def choose_all(instances: Sequence[Instance]) -> list[str]:
    """Whom an action on a whole scale set means: not who leaves, not who is protected from it."""
    return [
        instance.name
        for instance in instances
        if instance.wanted is not Wanted.DELETED and not instance.protect_from_scale_set_actions
    ]


def names_all(body: Mapping[str, Json]) -> bool:
    """Does a body mean every instance, in so many words?"""
    given = body.get("instanceIds")
    return given == "*" or given == ["*"]
