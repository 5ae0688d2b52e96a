"""Ids that templates put together: `resourceId` and its like."""

from collections.abc import Sequence

from labctl.arm.template_fault import Fault, Json
from labctl.arm.template_values import take_texts


def make_group_id(subscription: str, group: str, given: Sequence[Json]) -> str:
    """`resourceId([subscription], [group], type, name...)`."""
    before, tail = _split(given)
    if len(before) > 2:
        raise Fault("resourceId takes at most a subscription and a group before the type")
    if before:
        group = before[-1]
    if len(before) == 2:
        subscription = before[0]
    return f"/subscriptions/{subscription}/resourceGroups/{group}{tail}"


def make_subscription_id(subscription: str, given: Sequence[Json]) -> str:
    """`subscriptionResourceId([subscription], type, name...)`."""
    before, tail = _split(given)
    if len(before) > 1:
        raise Fault("subscriptionResourceId takes at most a subscription before the type")
    return f"/subscriptions/{before[0] if before else subscription}{tail}"


def make_tenant_id(given: Sequence[Json]) -> str:
    """`tenantResourceId(type, name...)`."""
    before, tail = _split(given)
    if before:
        raise Fault("tenantResourceId begins with a type such as Microsoft.Network/loadBalancers")
    return tail


def make_extension_id(given: Sequence[Json]) -> str:
    """`extensionResourceId(id, type, name...)`."""
    texts = take_texts(given)
    if not texts:
        raise Fault("extensionResourceId begins with the id of a resource")
    if len(texts) < 3:
        raise _need_type()
    return f"{texts[0]}{interleave(texts[1], texts[2:])}"


def interleave(kind: str, names: Sequence[str]) -> str:
    """`/providers/Namespace/type/name/type/name`. Raises Fault when a name is missing or over."""
    namespace, *kinds = kind.rstrip("/").split("/")  # public templates end types with a slash
    if len(kinds) != len(names):
        raise Fault(f"the type '{kind[:200]}' needs {len(kinds)} names, not {len(names)}")
    pairs = "".join(f"/{each}/{name}" for each, name in zip(kinds, names, strict=True))
    return f"/providers/{namespace}{pairs}"


def _split(given: Sequence[Json]) -> tuple[list[str], str]:
    texts = take_texts(given)
    place = next((i for i, text in enumerate(texts) if "/" in text), None)
    if place is None:
        raise _need_type()
    return texts[:place], interleave(texts[place], texts[place + 1 :])


def _need_type() -> Fault:
    return Fault("a type such as Microsoft.Network/loadBalancers and its names are needed")
