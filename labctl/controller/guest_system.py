"""Whether spec and image are for the same system, and what automatic upgrades ask of Windows."""

from sqlalchemy import Connection

from labctl.errors import InvalidError, RefusedError
from labctl.model.image import OsType
from labctl.model.spec import ScaleSetSpec
from labctl.store.gallery import find_definition

_AT = "windowsConfiguration.enableAutomaticUpdates"


def refuse_wrong_system(connection: Connection, spec: ScaleSetSpec) -> None:
    """Raises InvalidError when the image is for another system than the spec."""
    definition = find_definition(connection, spec.image.definition)
    if definition is None:
        return
    is_windows = definition.os_type is OsType.WINDOWS
    needs = _find_needed_setting(spec) if is_windows else None
    if needs is not None:
        raise InvalidError(f"scale set {needs}", hint=_HINT)
    if is_windows and not spec.is_windows:
        raise InvalidError(
            f"scale set {spec.name!r} has a Windows image and no windowsConfiguration",
            detail=f"image definition {definition.name!r} is windows",
            hint="add it to the spec: windowsConfiguration: {enableAutomaticUpdates: false}",
        )
    if spec.is_windows and not is_windows:
        raise InvalidError(
            f"scale set {spec.name!r} has a windowsConfiguration and no Windows image",
            detail=f"image definition {definition.name!r} is {definition.os_type.value}",
            hint="leave windowsConfiguration out, or name a definition that was imported with "
            "--os-type windows",
        )


def refuse_other_system(old: ScaleSetSpec, new: ScaleSetSpec) -> None:
    """Raises RefusedError when a scale set would change from Linux to Windows, or back."""
    if old.is_windows is not new.is_windows:
        raise RefusedError(
            f"scale set {new.name!r} cannot change between Linux and Windows",
            detail="neither reads the other's data disks",
            hint="apply the spec under another name",
        )


def find_updates_fault(spec: ScaleSetSpec) -> str | None:
    """Why automatic upgrades must not run: Windows Update does so by itself; None: they may."""
    # `apply` takes a Windows image with a windowsConfiguration only, so the spec alone tells.
    return _find_needed_setting(spec) if spec.is_windows else None


_HINT = "Windows Update would restart instances by itself, outside of batches and their limits"


def _find_needed_setting(spec: ScaleSetSpec) -> str | None:
    # Azure's default is true, also where nothing is said.
    configuration = spec.windows_configuration
    is_off = configuration is not None and not configuration.enable_automatic_updates
    policy = spec.upgrade_policy.automatic_os_upgrade_policy
    if is_off or not policy.enable_automatic_os_upgrade:
        return None
    return f"{spec.name!r} needs {_AT} to be false, as long as enableAutomaticOSUpgrade is true"
