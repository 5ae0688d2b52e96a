"""By which publisher, offer and SKU the definitions of this lab are found, without any network."""

from dataclasses import dataclass

from sqlalchemy import Connection

from labctl.model.publisher import Architecture
from labctl.store.gallery import load_definitions
from labctl.store.origins import load_pulled_skus

LAB_PUBLISHER = "labctl"
LAB_SKU = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformName:
    """One name of a definition; each has that of labctl, some their publisher's, too."""

    publisher: str
    offer: str
    sku: str
    definition: str
    architecture: Architecture | None = None  # None: nobody has told

    @property
    def key(self) -> tuple[str, str, str]:
        """Equal for names that mean the same."""
        return self.publisher.lower(), self.offer.lower(), self.sku.lower()


def load_platform_names(connection: Connection) -> dict[tuple[str, str, str], PlatformName]:
    """All names by key. Of two definitions with one name, the first by name has it.

    An image for x86_64 comes before one for another processor.
    """
    definitions = [each.name for each in load_definitions(connection)]
    pulled = [each for each in load_pulled_skus(connection) if each.definition in definitions]
    pulled.sort(key=lambda each: (each.architecture is not Architecture.X86_64, each.definition))
    found: dict[tuple[str, str, str], PlatformName] = {}
    for each in pulled:
        name = PlatformName(
            publisher=each.publisher,
            offer=each.offer,
            sku=each.sku,
            definition=each.definition,
            architecture=each.architecture,
        )
        found.setdefault(name.key, name)
    known = {each.definition: each.architecture for each in reversed(pulled)}
    for definition in definitions:
        name = PlatformName(
            publisher=LAB_PUBLISHER,
            offer=definition,
            sku=LAB_SKU,
            definition=definition,
            architecture=known.get(definition),
        )
        found[name.key] = name
    return found
