"""Settings of the api."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from shared.config import Section, SharedSettings

Origin = Annotated[str, Field(pattern=r"^(\*|https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?)$")]


class API(Section):
    """Processes, threads and limits of requests."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    processes: int = Field(default=2, ge=1)
    threads: int = Field(default=16, ge=2)
    """Threads of each process. At most three eighths wait for jobs; ``max_uploads`` limits those that take uploads."""
    max_wait_s: float = Field(default=60.0, ge=0)
    """The longest ``Prefer: wait`` that is honoured."""
    listen: bool = True
    """Whether each process listens to Postgres for the end of jobs, so that waiting requests need not poll."""
    listen_url: str | None = None
    """SQLAlchemy address of the database for listening. It is needed if ``database.url`` is that of a pooler in
    transaction mode, such as PgBouncer, which loses notifications."""
    poll_every_s: float = Field(default=0.2, gt=0)
    """How often a waiting request polls its job without notifications."""
    page_size: int = Field(default=20, ge=1)
    max_page_size: int = Field(default=100, ge=1)
    request_timeout_s: int = Field(default=120, ge=1)
    """A process without a heartbeat for this long is replaced. Slow uploads do not stop the heartbeat."""
    shutdown_grace_s: int = Field(default=30, ge=0)
    requests_per_minute: int = Field(default=1200, ge=1)
    """Requests of one key, for each path."""
    submissions_per_minute: int = Field(default=300, ge=1)
    """Submissions of one key."""
    refusals_per_minute: int = Field(default=60, ge=1)
    """Requests without a valid key from one address; after them all requests from it have to wait, even with a key."""
    max_open_jobs: int = Field(default=10_000, ge=1)
    """Open jobs of all owners; further ones are refused."""
    max_open_jobs_per_owner: int = Field(default=1000, ge=1)
    max_stored_bytes_per_owner: int | None = Field(default=None, ge=1)
    """Bytes of an owner's files in storage; no limit by default."""
    max_uploads: int | None = Field(default=None, ge=1)
    """Concurrent uploads of over 1 MiB in a process, and as many smaller ones; by default a quarter of its threads."""
    trusted_proxies: int = Field(default=0, ge=0)
    """Number of proxies in front of the api that append to ``X-Forwarded-For``; 0 if clients connect directly."""
    cors_origins: list[Origin] = Field(default=[])
    """Origins of web pages that may call the api, such as ``https://desk.example``, or ``*`` for all."""
    metrics_token: SecretStr | None = None
    """Bearer token for ``/metrics``; without one it answers only on loopback."""

    @property
    def uploads(self) -> int:
        """Upload slots of a process for large bodies, and as many for small ones."""
        return self.max_uploads or max(1, self.threads // 4)

    @property
    def waiting(self) -> int:
        """Requests of a process that may wait for jobs at a time; some threads stay free of them and of uploads."""
        return max(1, self.threads * 3 // 8)

    @property
    def streaming(self) -> int:
        """How many of the requests that wait may be pages of reports, whose readers need no key."""
        return max(1, self.waiting // 2)

    @property
    def bundles(self) -> int:
        """How many evidence bundles a process makes at a time."""
        return max(1, self.threads // 8)

    @property
    def pdfs(self) -> int:
        """How many PDF reports a process makes at a time."""
        return max(1, self.threads // 8)

    @property
    def viewing(self) -> int:
        """How many answers with media, for reports that people look at, a process sends at a time, and how many images
        of explanations it reads at a time for them.
        """
        return max(1, self.threads // 4)


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
    """All settings of the api."""

    api: API = API()
    evidence: Evidence = Evidence()
