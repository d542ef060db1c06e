"""
Settings that both services need, and the loader for settings.

Values come from a YAML file, named by ``DEEPFAKESTREAM_CONFIG``, from a folder of secrets, named by
``DEEPFAKESTREAM_SECRETS``, and from environment variables. Each source overrides those before it. ``database.url`` in
the file is ``DEEPFAKESTREAM_DATABASE__URL`` in the environment and the file ``database__url`` in the folder. All
mistakes are reported together, each by its full name. Nothing but ``load_settings`` reads the environment, and
``shared.effective_settings``, which shows operators where values come from.
"""

import os
from pathlib import Path
from typing import Literal, Self, TypeVar
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)

from shared.containers.facts import MAX_IMAGE_PIXELS, MediaLimits
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR

CONFIG_VARIABLE = "DEEPFAKESTREAM_CONFIG"
SECRETS_VARIABLE = "DEEPFAKESTREAM_SECRETS"
SECTIONS = {
    "api",
    "broker",
    "database",
    "evidence",
    "jobs",
    "limits",
    "logging",
    "models",
    "provenance",
    "storage",
    "streams",
    "tracing",
    "webhooks",
    "worker",
}
"""The top-level keys of a configuration file, of both services."""


class ConfigurationError(Exception):
    """One or more settings are missing or invalid; the message lists all of them."""


class Section(BaseModel):
    """A group of settings. It is frozen and refuses unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Database(Section):
    """Postgres."""

    url: str
    """SQLAlchemy address, ``postgresql+psycopg://…``."""
    pool_size: int = Field(default=5, ge=1)
    connect_timeout_s: int = Field(default=5, ge=1)


class Broker(Section):
    """Redis as the Celery broker. It only signals work; the rows in Postgres define it."""

    url: str
    visibility_timeout_s: int = Field(default=3600, ge=60)
    """How long until Redis delivers an unacknowledged message again; it must be well above the hard time limits."""


class StorageSettings(Section):
    """Storage of uploads. All settings but ``url`` are for S3 and compatible servers."""

    url: str
    """``file:///folder`` or ``s3://bucket/prefix``."""
    endpoint_url: str | None = None
    """The address of the S3 server; Amazon's by default."""
    public_endpoint_url: str | None = None
    """The address at which clients reach the S3 server. Without it direct uploads pass through the api, unless the
    server is Amazon's."""
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None
    """The secret of *access_key_id*. Without the two, the platform's credentials are used, such as an instance role."""
    server_side_encryption: Literal["AES256", "aws:kms"] | None = None
    kms_key_id: str | None = None
    upload_valid_s: int = Field(default=3600, ge=60, le=7 * 24 * 3600)
    """How long the address of a direct upload is valid."""
    cache_dir: Path | None = None
    """The folder for workers' local copies of objects; by default below the system's temporary folder."""
    cache_bytes: int = Field(default=20 * 1024**3, gt=0)
    """The most that copies which are not in use may take."""
    cache_linger_s: float = Field(default=120.0, gt=0)
    """How long a copy stays after its last use. An object that was erased from storage is gone here after that, too."""

    @property
    def is_s3(self) -> bool:
        """Whether uploads are stored in S3."""
        return self.url.startswith("s3://")

    @field_validator("url")
    @classmethod
    def _check_url_scheme(cls, value: str) -> str:
        kind, _, rest = value.partition("://")
        if kind not in {"file", "s3"} or not rest.strip("/"):
            raise ValueError("must be file:///folder or s3://bucket/prefix")
        return value

    @field_validator("endpoint_url", "public_endpoint_url")
    @classmethod
    def _check_endpoint_scheme(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key must be set together")
        if self.kms_key_id is not None and self.server_side_encryption != "aws:kms":
            raise ValueError("kms_key_id needs server_side_encryption: aws:kms")
        return self


class Models(Section):
    """The checkpoints that jobs can use."""

    dir: Path = PACKAGED_MODELS_DIR
    default: str = DEFAULT_CHECKPOINT


class Limits(Section):
    """Limits of uploads. An error that refuses an upload names the limit that it exceeds."""

    max_upload_bytes: int = Field(default=2 * 1024**3, gt=0)
    max_duration_s: float = Field(default=7200.0, gt=0)
    max_pixels: int = Field(default=8192 * 4320, gt=0)
    """Width × height of one frame of a video or an animation."""
    max_image_pixels: int = Field(default=MAX_IMAGE_PIXELS, gt=0)
    """Width × height of a still image."""
    max_frame_rate: float = Field(default=240.0, gt=0)
    max_metadata_bytes: int = Field(default=4096, gt=0)

    def for_media(self) -> MediaLimits:
        """Return the limits that media inspection enforces."""
        return MediaLimits(
            max_bytes=self.max_upload_bytes,
            max_duration_s=self.max_duration_s,
            max_pixels=self.max_pixels,
            max_frame_rate=self.max_frame_rate,
            max_image_pixels=self.max_image_pixels,
        )


class Jobs(Section):
    """Leases, attempts and retention."""

    lease_s: float = Field(default=30.0, gt=0)
    """A lease that is not renewed for this long has expired, and its worker is presumed dead."""
    max_attempts: int = Field(default=3, ge=1)
    retry_backoff_s: float = Field(default=2.0, ge=0)
    """The wait before the second attempt; it doubles with each further one."""
    sweep_every_s: float = Field(default=5.0, gt=0)
    tidy_every_s: float = Field(default=600.0, gt=0)
    """How often expired media, expired results and orphaned files are erased."""
    resend_after_s: float = Field(default=10.0, gt=0)
    """A message that no worker took for this long is sent again if its queue is empty."""
    resend_always_after_s: float = Field(default=900.0, gt=0)
    """A message that no worker took for this long is sent again even if its queue is not empty."""
    reuse_results: bool = False
    """Whether a request without ``reuse`` reuses the scores of a job with the same file, options and checkpoint."""
    media_retention_days: float = Field(default=30.0, gt=0)
    result_retention_days: float = Field(default=365.0, gt=0)
    audit_retention_days: float = Field(default=730.0, gt=0)


class Streams(Section):
    """Live streams; see ``docs/streams.md``."""

    lease_s: float = Field(default=6.0, ge=1.0)
    """A reader that has not renewed its lease for this long is presumed dead, and another one takes over."""
    max_open_per_owner: int = Field(default=8, ge=1)
    max_duration_s: float = Field(default=4 * 3600.0, gt=0)
    """The longest duration that a stream can have."""
    max_waiting: int = Field(default=6, ge=1)
    """Segments of one stream that may wait to be scored; the oldest of more are dropped."""
    source_timeout_s: float = Field(default=60.0, gt=0)
    """A stream whose source sends no picture for this long, over all attempts to connect, ends."""
    window_s: float = Field(default=30.0, gt=0)
    """The time over which a person is judged while the stream runs."""
    allow_shared_network: bool = False
    """Read RTSP, RTMP and SRT also where the system allows no network namespaces, which is less safe."""
    push_listen: str | None = None
    """Where readers accept publishers, ``host:port``, such as ``0.0.0.0:1935``; nowhere by default."""
    push_address: str | None = None
    """The address of that port for publishers, ``rtmp://host:port``; without it, no stream can be published."""
    push_certificate_file: Path | None = None
    """PEM file of the certificate chain for ``rtmps:``; without it, readers speak ``rtmp:``."""
    push_certificate_key_file: Path | None = None
    """PEM file of its private key; the same file by default."""
    push_wait_s: float = Field(default=600.0, gt=0)
    """How long a stream waits for the first picture of its publisher. After that, ``source_timeout_s`` counts."""

    @property
    def push_endpoint(self) -> tuple[str, int] | None:
        """Host, which may be empty, and port of ``push_listen``."""
        if self.push_listen is None:
            return None
        parts = urlsplit(f"//{self.push_listen}")
        return parts.hostname or "", parts.port or 0

    @field_validator("push_listen", "push_address", mode="before")
    @classmethod
    def _is_off_when_empty(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("push_listen")
    @classmethod
    def _check_push_listen(cls, value: str | None) -> str | None:
        if value is not None and not _is_host_and_port(f"//{value}"):
            raise ValueError("must be host:port, such as 0.0.0.0:1935 or [::]:1935")
        return value

    @field_validator("push_address")
    @classmethod
    def _check_push_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        value = value.rstrip("/")
        if not value.startswith(("rtmp://", "rtmps://")) or not _is_host_and_port(value, needs_port=False):
            raise ValueError("must be rtmp://host:port or rtmps://host:port, without a path")
        return value


def _is_host_and_port(url: str, *, needs_port: bool = True) -> bool:
    """Return whether *url* has nothing but a host and a port."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    is_plain = not (parts.path or parts.query or parts.fragment or "@" in parts.netloc)
    return is_plain and bool(parts.hostname) and (port is not None or not needs_port)


class Webhooks(Section):
    """Delivery of webhooks for finished jobs."""

    timeout_s: float = Field(default=15.0, gt=0)
    """The longest that one attempt takes, including the receiver's whole answer."""
    retry_schedule_s: list[float] = [5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 28800]
    """Waits between attempts, plus up to 20 % jitter each; about a day in total."""
    allow_insecure: bool = False
    """Accept http: addresses and addresses that are not globally reachable, such as loopback."""


class Logging(Section):
    """The form in which log events are written to standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["json", "console"] = "json"


class Tracing(Section):
    """OpenTelemetry traces."""

    otlp_endpoint: str | None = None
    """Base address of an OTLP collector over HTTP, such as ``http://collector:4318``. Without it tracing is off."""
    sampled_share: float = Field(default=1.0, ge=0.0, le=1.0)
    """The share of traces beginning in this service that are recorded."""


class SharedSettings(BaseSettings):
    """Settings that the api and the worker share; each service adds its own section."""

    model_config = SettingsConfigDict(
        env_prefix="DEEPFAKESTREAM_",
        env_nested_delimiter="__",
        frozen=True,
        # The other service's section is in the same file.
        extra="ignore",
    )

    database: Database
    broker: Broker
    storage: StorageSettings
    models: Models = Models()
    limits: Limits = Limits()
    jobs: Jobs = Jobs()
    streams: Streams = Streams()
    webhooks: Webhooks = Webhooks()
    logging: Logging = Logging()
    tracing: Tracing = Tracing()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: arguments, then environment, then secrets, then the file; no dotenv."""
        del dotenv_settings
        sources = [init_settings, env_settings]
        if folder := os.environ.get(SECRETS_VARIABLE):
            # Orchestrators mount secrets as files: an environment is inherited and shows up in dumps.
            sources.append(
                NestedSecretsSettingsSource(
                    file_secret_settings,
                    secrets_dir=folder,
                    secrets_dir_missing="error",
                    secrets_prefix="",
                    secrets_nested_delimiter="__",
                )
            )
        if file := os.environ.get(CONFIG_VARIABLE):
            sources.append(YamlConfigSettingsSource(settings_cls, yaml_file=file))
        return tuple(sources)


AnySettings = TypeVar("AnySettings", bound=SharedSettings)


def load_settings(settings_type: type[AnySettings]) -> AnySettings:
    """
    Read and validate the settings of one service from the file and the environment.

    Raises:
        ConfigurationError: Settings are missing, unknown or invalid; the message names them all.
    """
    problems = _unknown_sections()
    try:
        settings = settings_type()
    except ValidationError as error:
        problems += [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        if not os.environ.get(CONFIG_VARIABLE) and any(item["type"] == "missing" for item in error.errors()):
            problems.append(
                f"(no configuration file is named by {CONFIG_VARIABLE}; commands for operators find the settings of a"
                " stack that runs with 'deepfakestream up' or 'make run' themselves)"
            )
        raise ConfigurationError(_format_problems(problems)) from error
    except (SettingsError, yaml.YAMLError, OSError) as error:
        raise ConfigurationError(_format_problems([*problems, str(error)])) from error
    if problems:
        raise ConfigurationError(_format_problems(problems))
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


def _format_problems(problems: list[str]) -> str:
    return "invalid configuration:\n" + "\n".join(f"  {problem}" for problem in problems)
