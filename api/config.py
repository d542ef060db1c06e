"""Settings of the api."""

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from shared.config import Section, SharedSettings


class API(Section):
    """Processes, threads and what a request may ask for."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    processes: int = Field(default=2, ge=1)
    threads: int = Field(default=16, ge=2)
    """Of each process. Three eighths at most wait for jobs at a time, and as many as ``max_uploads`` says upload."""
    max_wait_s: float = Field(default=60.0, ge=0)
    """The longest ``Prefer: wait`` that is honoured."""
    listen: bool = True
    """Whether a connection of each process hears from Postgres when jobs end, so that waiting requests need not ask."""
    listen_url: str | None = None
    """SQLAlchemy address of the database for that connection, where ``database.url`` leads to a pooler that lends
    connections by transaction, such as PgBouncer, which loses notifications."""
    poll_every_s: float = Field(default=0.2, gt=0)
    """How often a waiting request looks at its job where nothing is heard."""
    page_size: int = Field(default=20, ge=1)
    max_page_size: int = Field(default=100, ge=1)
    request_timeout_s: int = Field(default=120, ge=1)
    """A process that gives no sign of life for this long is replaced; a slow upload is a sign of life."""
    shutdown_grace_s: int = Field(default=30, ge=0)
    requests_per_minute: int = Field(default=1200, ge=1)
    """Of one key, for each path."""
    submissions_per_minute: int = Field(default=300, ge=1)
    """Of one key."""
    refusals_per_minute: int = Field(default=60, ge=1)
    """Requests without a valid key from one address; past them the address has to wait, whatever key it shows."""
    max_open_jobs: int = Field(default=10_000, ge=1)
    """Jobs of all owners that have not ended; more are refused."""
    max_open_jobs_per_owner: int = Field(default=1000, ge=1)
    max_stored_bytes_per_owner: int | None = Field(default=None, ge=1)
    """Of files in storage; no limit by default."""
    max_uploads: int | None = Field(default=None, ge=1)
    """Bodies of more than 1 MiB that a process takes in at a time, and of less likewise; a quarter of its threads."""
    trusted_proxies: int = Field(default=0, ge=0)
    """How many proxies stand in front, each extending ``X-Forwarded-For``; 0 if clients come themselves."""
    metrics_token: SecretStr | None = None
    """What ``/metrics`` asks for as a bearer token; without one it answers on loopback alone."""

    @property
    def uploads(self) -> int:
        """How many large bodies, and how many small ones, a process takes in at a time."""
        return self.max_uploads or max(1, self.threads // 4)

    @property
    def waiting(self) -> int:
        """How many requests of a process wait for jobs at a time; beside them and uploads some threads stay free."""
        return max(1, self.threads * 3 // 8)

    @property
    def bundles(self) -> int:
        """How many evidence bundles a process sends at a time."""
        return max(1, self.threads // 8)


class Evidence(Section):
    """Signed bundles of what is stored of a job; see ``docs/evidence.md``."""

    key_file: Path | None = None
    """PEM file of the Ed25519 private key that signs them; without a key there are no bundles."""
    key: SecretStr | None = None
    """Instead of ``key_file``: the key itself in PEM form, for folders of secrets, as the file ``evidence__key``."""
    retired_key_files: list[Path] = Field(default=[])
    """PEM files of the public keys that signed earlier bundles, to be listed beside the current one."""
    timestamp_url: str | None = None
    """Address of an RFC 3161 time stamp authority; without one bundles have no time stamp."""

    @model_validator(mode="after")
    def _has_one_key(self) -> Self:
        if self.key is not None and self.key_file is not None:
            raise ValueError("give either key or key_file")
        return self

    @field_validator("timestamp_url")
    @classmethod
    def _has_scheme(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value


class APISettings(SharedSettings):
    """Everything the api needs."""

    api: API = API()
    evidence: Evidence = Evidence()
