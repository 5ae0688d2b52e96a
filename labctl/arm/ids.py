"""Resource ids: compared without regard to case, given back as they were written."""

import re
from dataclasses import dataclass

from typing_extensions import override

from labctl.arm.errors import invalid

_GROUP = re.compile(r"[\w().-]{0,89}[\w()-]")  # Azure's rule for names of resource groups


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceId:
    """`/subscriptions/S/resourceGroups/G/providers/NAMESPACE/TYPE/NAME[/TYPE/NAME...]`."""

    subscription: str
    group: str | None  # None: on the level of the subscription
    namespace: str  # "Microsoft.Compute"
    parts: tuple[tuple[str, str], ...]  # (type, name), outermost first

    @property
    def type(self) -> str:
        """For example `Microsoft.Compute/galleries/images`."""
        return "/".join((self.namespace, *(kind for kind, _ in self.parts)))

    @property
    def name(self) -> str:
        """The name of the resource itself, without those of its parents."""
        return self.parts[-1][1]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its parents, outermost first, and its own."""
        return tuple(name for _, name in self.parts)

    @property
    def key(self) -> str:
        """Equal for ids that mean the same."""
        return str(self).lower()

    @property
    def parent(self) -> "ResourceId | None":
        """The resource that this one is part of."""
        if len(self.parts) < 2:
            return None
        return ResourceId(
            subscription=self.subscription,
            group=self.group,
            namespace=self.namespace,
            parts=self.parts[:-1],
        )

    def child(self, kind: str, name: str) -> "ResourceId":
        """A resource that is part of this one."""
        return ResourceId(
            subscription=self.subscription,
            group=self.group,
            namespace=self.namespace,
            parts=(*self.parts, (kind, name)),
        )

    @override
    def __str__(self) -> str:
        """As it goes over the wire."""
        group = "" if self.group is None else f"/resourceGroups/{self.group}"
        parts = "".join(f"/{kind}/{name}" for kind, name in self.parts)
        return f"/subscriptions/{self.subscription}{group}/providers/{self.namespace}{parts}"


def parse_id(text: object, *, target: str = "id") -> ResourceId:
    """Read an id in any case. Raises ArmError (LinkedInvalidPropertyId) for what is none."""
    words = text.split("/") if isinstance(text, str) else []
    lower = [word.lower() for word in words]
    is_whole = len(words) >= 7 and all(words[1:]) and words[0] == ""
    if not is_whole or lower[1] != "subscriptions":
        raise _not_an_id(text, target)
    group, rest = None, words[3:]
    if lower[3] == "resourcegroups":
        group, rest = words[4], words[5:]
    if len(rest) < 4 or len(rest) % 2 or rest[0].lower() != "providers":
        raise _not_an_id(text, target)
    pairs = zip(rest[2::2], rest[3::2], strict=True)
    return ResourceId(subscription=words[2], group=group, namespace=rest[1], parts=tuple(pairs))


def check_group_name(name: str) -> None:
    """Raises ArmError (InvalidResourceGroupName)."""
    if not _GROUP.fullmatch(name):
        raise invalid(
            f"The resource group name '{name}' is not 1 to 90 letters, digits and -_.() that do "
            "not end with a period.",
            code="InvalidResourceGroupName",
            target=name,
        )


def _not_an_id(text: object, target: str) -> Exception:
    return invalid(
        f"'{target}' is not a resource id such as /subscriptions/.../resourceGroups/.../providers/"
        f"NAMESPACE/TYPE/NAME: {str(text)[:200]!r}",
        code="LinkedInvalidPropertyId",
        target=target,
    )
