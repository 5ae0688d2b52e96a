"""A spec as it is printed: what the user wrote, without the defaults."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labctl.model.spec import ScaleSetSpec


def make_plain(spec: "ScaleSetSpec", *, reveals: bool = False) -> dict[str, Any]:
    """Its keys in the words of YAML; secrets are masked unless they are to be revealed."""
    context = {"reveal": True} if reveals else None
    plain: dict[str, Any] = spec.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, context=context
    )
    for extension in plain.get("extensions", ()):
        # pydantic forgets the default of a field that has a serializer of its own.
        if extension.get("protectedSettings") == {}:
            del extension["protectedSettings"]
    return plain
