"""Bodies of galleries, image definitions and image versions: checked, and merged like JSON."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from labctl.arm.errors import ArmError, ErrorDetail

Json = Any  # what json.loads gives
Text = Annotated[str, Field(max_length=4096)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]

_MOST_FAULTS = 20


def _read_moment(value: Json) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("must be a date such as 2027-01-31T00:00:00Z")  # noqa: TRY004 - pydantic
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError("must be a date such as 2027-01-31T00:00:00Z") from error


Moment = Annotated[datetime | None, BeforeValidator(_read_moment)]


class _Part(BaseModel):
    """A part of a body: camelCase names, unknown ones are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, hide_input_in_errors=True
    )


class _Resource(_Part):
    """What every resource has; ids, names and states of answers may come back and mean nothing."""

    id: Any = None
    name: Any = None
    type: Any = None
    etag: Any = None
    system_data: Any = None
    location: Any = None  # see `tracked.py`
    tags: Any = None
    identity: Any = None


class SharingProfile(_Part):
    """With whom a gallery is shared."""

    permissions: str | None = None
    groups: Any = None
    community_gallery_info: Any = None


class SoftDeletePolicy(_Part):
    """Whether what is deleted can be had back."""

    is_soft_delete_enabled: bool | None = None
    retention_period_in_days: Count | None = None
    grace_period_in_days: Count | None = None


class GalleryProperties(_Part):
    """Of a gallery."""

    description: Text | None = None
    identifier: Any = None
    provisioning_state: Any = None
    sharing_status: Any = None
    sharing_profile: SharingProfile | None = None
    soft_delete_policy: SoftDeletePolicy | None = None


class GalleryBody(_Resource):
    """A gallery."""

    properties: GalleryProperties = GalleryProperties()


class Identifier(_Part):
    """What a definition calls itself."""

    publisher: Annotated[str, Field(min_length=1, max_length=128)]
    offer: Annotated[str, Field(min_length=1, max_length=64)]
    sku: Annotated[str, Field(min_length=1, max_length=64)]


class Range(_Part):
    """From, to."""

    min: Count | None = None
    max: Count | None = None


class Recommended(_Part):
    """A recommended machine."""

    v_cpus: Annotated[Range | None, Field(alias="vCPUs")] = None
    memory: Range | None = None


class Disallowed(_Part):
    """Disk types that are not for this image."""

    disk_types: list[Text] | None = None


class PurchasePlan(_Part):
    """Of a marketplace."""

    name: Text | None = None
    publisher: Text | None = None
    product: Text | None = None


class Feature(_Part):
    """One feature of a definition."""

    name: Text | None = None
    value: Text | None = None
    starts_at_version: Text | None = None


class ImageExtras(_Part):
    """What ARM has no place for."""

    os_type: Literal["linux", "flatcar", "fedora-coreos", "windows"] | None = None


class ImageProperties(_Part):
    """Of an image definition."""

    description: Text | None = None
    eula: Text | None = None
    privacy_statement_uri: Text | None = None
    release_note_uri: Text | None = None
    os_type: Literal["Linux", "Windows"] | None = None
    os_state: Literal["Generalized", "Specialized"] | None = None
    hyper_v_generation: Literal["V1", "V2"] | None = None
    end_of_life_date: Moment = None
    identifier: Identifier | None = None
    recommended: Recommended | None = None
    disallowed: Disallowed | None = None
    purchase_plan: PurchasePlan | None = None
    features: list[Feature] | None = None
    architecture: Literal["x64", "Arm64"] | None = None
    allow_update_image: bool | None = None
    provisioning_state: Any = None
    labctl: ImageExtras | None = None


class ImageBody(_Resource):
    """An image definition."""

    properties: ImageProperties = ImageProperties()


class TargetRegion(_Part):
    """A region that a version may be used in."""

    name: Text
    regional_replica_count: Count | None = None
    storage_account_type: Text | None = None
    encryption: Any = None
    exclude_from_latest: bool | None = None
    additional_replica_sets: list[Any] | None = None


class Publishing(_Part):
    """What `latest` may mean, and where."""

    target_regions: list[TargetRegion] | None = None
    replica_count: Count | None = None
    exclude_from_latest: bool | None = None
    published_date: Any = None
    end_of_life_date: Moment = None
    storage_account_type: Text | None = None
    replication_mode: Text | None = None
    target_extended_locations: list[Any] | None = None
    storage_account_strategy: Text | None = None


class FullSource(_Part):
    """A whole image as the source."""

    id: Text | None = None
    community_gallery_image_id: Text | None = None
    virtual_machine_id: Text | None = None


class DiskSource(_Part):
    """A disk or a file as the source."""

    id: Text | None = None
    uri: Text | None = None
    storage_account_id: Text | None = None


class OsDiskImage(_Part):
    """The OS disk."""

    size_in_gb: Annotated[Any, Field(alias="sizeInGB")] = None
    host_caching: Text | None = None
    source: DiskSource | None = None


class StorageProfile(_Part):
    """Where a version comes from."""

    source: FullSource | None = None
    os_disk_image: OsDiskImage | None = None
    data_disk_images: list[Any] | None = None


class SafetyProfile(_Part):
    """What may be deleted."""

    allow_deletion_of_replicated_locations: bool | None = None
    reported_for_policy_violation: Any = None
    policy_violations: Any = None
    block_deletion_before_end_of_life: bool | None = None


class VersionProperties(_Part):
    """Of an image version."""

    publishing_profile: Publishing = Publishing()
    storage_profile: StorageProfile = StorageProfile()
    safety_profile: SafetyProfile = SafetyProfile()
    security_profile: Any = None
    restore: bool | None = None
    provisioning_state: Any = None
    replication_status: Any = None
    validations_profile: Any = None
    image_metadata_profiles: Any = None
    labctl: Any = None  # the file's digest and sizes, told by GET


class VersionBody(_Resource):
    """An image version."""

    properties: VersionProperties = VersionProperties()


_Body = TypeVar("_Body", bound=_Resource)


def read_body(kind: type[_Body], document: Mapping[str, Json]) -> _Body:
    """Check a whole body. Raises ArmError that tells every fault with its JSON path."""
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        details = tuple(
            ErrorDetail(
                code="InvalidParameter",
                message=_tell(fault["type"], path := _join(fault["loc"]), fault["msg"]),
                target=path,
            )
            for fault in error.errors(include_url=False, include_input=False)[:_MOST_FAULTS]
        )
        first = details[0]
        raise ArmError(
            400,
            first.code,
            first.message,
            target=first.target,
            details=details if len(details) > 1 else (),
        ) from error


def merge_json(present: Json, sent: Json) -> Json:
    """Put what is sent over what is there: objects merge, null removes, all else replaces."""
    if not isinstance(present, dict) or not isinstance(sent, dict):
        return _without_nulls(sent)
    merged = dict(present)
    for key, value in sent.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_json(merged.get(key), value)
    return merged


def _without_nulls(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return value


def _join(place: tuple[int | str, ...]) -> str:
    path = ""
    for step in place:
        word = str(step)[:60]
        path += f"[{word}]" if isinstance(step, int) else f".{word}" if path else word
    return path


def _tell(kind: str, path: str, message: str) -> str:
    if kind == "extra_forbidden":
        return f"Could not find member '{path}'; this lab knows no such property."
    if kind == "missing":
        return f"Required parameter '{path}' is missing (null)."
    return f"'{path}': {message.removeprefix('Value error, ')}."
