"""Whether an image can do anything with the custom data of a spec."""

from sqlalchemy import Connection

from labctl.drivers.ignition import find_custom_data_fault, find_entry_name
from labctl.errors import InvalidError
from labctl.model.spec import ScaleSetSpec
from labctl.store.gallery import find_definition


def refuse_unfit_custom_data(connection: Connection, spec: ScaleSetSpec) -> None:
    """Raises InvalidError for an image with Ignition and custom data that is no Ignition config."""
    text = spec.custom_data.inline if spec.custom_data is not None else None
    definition = find_definition(connection, spec.image.definition)
    if not text or definition is None or find_entry_name(definition.os_type) is None:
        return
    fault = find_custom_data_fault(text.encode())
    if fault is not None:
        raise InvalidError(
            f"customData of scale set {spec.name!r} is not an Ignition config",
            detail=f"image definition {definition.name!r} is {definition.os_type.value}, which"
            f" takes nothing else; {fault}",
            hint='write an Ignition config as JSON: {"ignition": {"version": "3.3.0"}, ...}',
        )
