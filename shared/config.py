"""
Settings that both services need, and how any settings are read.

Values come from one YAML file, named by ``DEEPFAKESTREAM_CONFIG``, and from environment variables, which win:
``database.url`` in the file is ``DEEPFAKESTREAM_DATABASE__URL`` in the environment. All mistakes are reported
together, each by its full name. Nothing but ``load_settings`` reads the environment.
"""

import os
from pathlib import Path
from typing import Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)

from shared.containers import MediaLimits
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR

CONFIG_VARIABLE = "DEEPFAKESTREAM_CONFIG"
SECTIONS = {
    "api",
    "broker",
    "database",
    "jobs",
    "limits",
    "logging",
    "models",
    "storage",
    "webhooks",
    "worker",
}
"""Every top-level key a configuration file may have, of either service."""


class ConfigurationError(Exception):
    """One or more settings are missing or invalid; the message lists all of them."""


class Section(BaseModel):
    """A group of settings: frozen, and a name it does not know is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Database(Section):
    """Postgres."""

    url: str
    """SQLAlchemy address, ``postgresql+psycopg://…``."""
    pool_size: int = Field(default=5, ge=1)
    connect_timeout_s: int = Field(default=5, ge=1)


class Broker(Section):
    """Redis as the Celery broker: a signal, never the truth."""

    url: str
    visibility_timeout_s: int = Field(default=3600, ge=60)
    """Redis delivers an unacknowledged message again after this long; hard time limits stay well below it."""


class StorageSettings(Section):
    """Where uploads are kept."""

    url: str
    """``file:///folder`` or ``s3://bucket/prefix``."""


class Models(Section):
    """Which checkpoints can be asked for."""

    dir: Path = PACKAGED_MODELS_DIR
    default: str = DEFAULT_CHECKPOINT


class Limits(Section):
    """What a sender may send. Whatever exceeds one is refused with its name."""

    max_upload_bytes: int = Field(default=2 * 1024**3, gt=0)
    max_duration_s: float = Field(default=7200.0, gt=0)
    max_pixels: int = Field(default=8192 * 4320, gt=0)
    """Width × height of one picture."""
    max_frame_rate: float = Field(default=240.0, gt=0)
    max_metadata_bytes: int = Field(default=4096, gt=0)

    def for_media(self) -> MediaLimits:
        """The limits that media inspection enforces."""
        return MediaLimits(
            max_bytes=self.max_upload_bytes,
            max_duration_s=self.max_duration_s,
            max_pixels=self.max_pixels,
            max_frame_rate=self.max_frame_rate,
        )


class Jobs(Section):
    """Leases, attempts and retention."""

    lease_s: float = Field(default=30.0, gt=0)
    """A lease that is not renewed for this long is taken for lost, with its worker."""
    max_attempts: int = Field(default=3, ge=1)
    retry_backoff_s: float = Field(default=2.0, ge=0)
    """Before the second attempt; doubles with each further one."""
    sweep_every_s: float = Field(default=5.0, gt=0)
    tidy_every_s: float = Field(default=600.0, gt=0)
    """How often expired media, expired results and orphaned files are erased."""
    resend_after_s: float = Field(default=10.0, gt=0)
    """A message unanswered for this long is sent again if its queue is empty."""
    resend_always_after_s: float = Field(default=900.0, gt=0)
    """Likewise, whatever the queue holds."""
    reuse_results: bool = False
    """Take scores over from an earlier job with the same file, options and checkpoint where a request does not say."""
    media_retention_days: float = Field(default=30.0, gt=0)
    result_retention_days: float = Field(default=365.0, gt=0)
    audit_retention_days: float = Field(default=730.0, gt=0)


class Webhooks(Section):
    """Delivery of finished jobs."""

    timeout_s: float = Field(default=15.0, gt=0)
    """Of one attempt, the receiver's whole answer included."""
    retry_schedule_s: list[float] = [5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 28800]
    """Waits between attempts, each with up to 20 % jitter: about a day in all."""
    allow_insecure: bool = False
    """Accept http: addresses and addresses that are not globally reachable, such as loopback."""


class Logging(Section):
    """How events are written to standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["json", "console"] = "json"


class SharedSettings(BaseSettings):
    """What the api and the worker both need; each service's settings extend it by a section of its own."""

    model_config = SettingsConfigDict(
        env_prefix="DEEPFAKESTREAM_",
        env_nested_delimiter="__",
        frozen=True,
        # The other service's section stands in the same file.
        extra="ignore",
    )

    database: Database
    broker: Broker
    storage: StorageSettings
    models: Models = Models()
    limits: Limits = Limits()
    jobs: Jobs = Jobs()
    webhooks: Webhooks = Webhooks()
    logging: Logging = Logging()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then environment, then the file: no dotenv and no secrets folder."""
        del dotenv_settings, file_secret_settings
        file = os.environ.get(CONFIG_VARIABLE)
        sources = (init_settings, env_settings)
        return (*sources, YamlConfigSettingsSource(settings_cls, yaml_file=file)) if file else sources


AnySettings = TypeVar("AnySettings", bound=SharedSettings)


def load_settings(settings_type: type[AnySettings]) -> AnySettings:
    """
    Read and validate the settings of one service from the file and the environment.

    Raises:
        ConfigurationError: Naming every missing, unknown or invalid setting.
    """
    problems = _unknown_sections()
    try:
        settings = settings_type()
    except ValidationError as error:
        problems += [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise ConfigurationError(_sentence(problems)) from error
    except (SettingsError, yaml.YAMLError, OSError) as error:
        raise ConfigurationError(_sentence([*problems, str(error)])) from error
    if problems:
        raise ConfigurationError(_sentence(problems))
    return settings


def _unknown_sections() -> list[str]:
    file = os.environ.get(CONFIG_VARIABLE)
    if not file:
        return []
    try:
        content = yaml.safe_load(Path(file).read_bytes())
    except OSError as error:
        return [f"{CONFIG_VARIABLE}: the file cannot be read ({error.strerror})"]
    except yaml.YAMLError:
        return [f"{CONFIG_VARIABLE}: the file is not valid YAML"]
    names = content if isinstance(content, dict) else {}
    return [f"{name}: no such section" for name in names if name not in SECTIONS]


def _sentence(problems: list[str]) -> str:
    return "invalid configuration:\n" + "\n".join(f"  {problem}" for problem in problems)
