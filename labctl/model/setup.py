"""What runs on each new OS disk: custom data and extensions."""

from datetime import timedelta
from typing import Self

from pydantic import Field, JsonValue, SerializationInfo, field_serializer, model_validator

from labctl.model import extension_rules
from labctl.model import spec_rules as rules
from labctl.model.quantity import Duration
from labctl.model.strict import Strict


class CustomData(Strict):
    """What the instance runs once on each new OS disk. Exactly one of `inline` and `file`."""

    inline: str | None = None
    file: str | None = Field(default=None, description="Path, relative to the spec file")

    @model_validator(mode="after")
    def _require_one_source(self) -> Self:
        if (self.inline is None) == (self.file is None):
            raise ValueError("must have exactly one of 'inline' and 'file'")
        fault = rules.find_size_fault(self.inline, rules.CUSTOM_DATA_LIMIT)
        rules.require([(("inline",), fault)] if fault else [])
        return self


class Extension(Strict):
    """What labctl runs on each new OS disk. Exactly one of script, file, url and playbook."""

    name: str = Field(min_length=1, max_length=80, pattern=r"^[ -~]+$")
    script: str | None = None
    file: str | None = Field(default=None, description="Path, relative to the spec file")
    url: str | None = Field(default=None, description="Fetched by the controller; needs sha256")
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    allow_http: bool = Field(
        default=False, description="Allow plain http to loopback and private addresses"
    )
    playbook: str | None = Field(
        default=None, description="Ansible playbook; path, relative to the spec file"
    )
    settings: dict[str, JsonValue] = Field(default={}, description="Handed to the script; public")
    protected_settings: dict[str, JsonValue] = Field(
        default={}, repr=False, description="The same, but never printed, logged or shown"
    )
    protected_settings_file: str | None = Field(
        default=None, description="YAML or JSON file (0600) with them, relative to the spec file"
    )
    suppress_failures: bool = False
    force_update_tag: str | None = Field(
        default=None, min_length=1, max_length=80, pattern=r"^[ -~]+$"
    )
    timeout: Duration = Field(default=timedelta(minutes=10), gt=timedelta(0))
    provision_after_extensions: tuple[str, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _require_one_source(self) -> Self:
        sources = (self.script, self.file, self.url, self.playbook)
        if sum(source is not None for source in sources) != 1:
            raise ValueError("must have exactly one of 'script', 'file', 'url' and 'playbook'")
        faults: rules.Faults = []
        if self.script is not None and not self.script.strip():
            faults.append((("script",), "must not be empty"))
        too_long = rules.find_size_fault(self.script, rules.SCRIPT_LIMIT)
        if too_long:
            faults.append((("script",), too_long))
        faults += self._find_url_faults()
        if self.protected_settings and self.protected_settings_file is not None:
            faults.append((("protectedSettingsFile",), "is given beside protectedSettings"))
        faults += extension_rules.find_settings_faults(self.settings, "settings")
        faults += extension_rules.find_protected_faults(
            self.protected_settings, has_url=self.url is not None
        )
        rules.require(faults)
        return self

    def _find_url_faults(self) -> rules.Faults:
        if self.url is None:
            return [
                ((key,), "is only for extensions with a url")
                for key, value in (("sha256", self.sha256), ("allowHttp", self.allow_http))
                if value
            ]
        fault = extension_rules.find_url_fault(self.url, allow_http=self.allow_http)
        faults: rules.Faults = [(("url",), fault)] if fault else []
        if self.sha256 is None:
            faults.append((("url",), "needs sha256, the checksum of what it gives"))
        return faults

    @field_serializer("protected_settings")
    def _mask(
        self, settings: dict[str, JsonValue], info: SerializationInfo
    ) -> dict[str, JsonValue]:
        # Masked unless it is asked for: only the store, a file with mode 0600, does that.
        is_revealed = isinstance(info.context, dict) and info.context.get("reveal") is True
        return settings if is_revealed else extension_rules.mask(settings)
