"""Settings of the api."""

from pydantic import Field

from shared.config import Section, SharedSettings


class API(Section):
    """Processes, threads and what a request may ask for."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    processes: int = Field(default=2, ge=1)
    threads: int = Field(default=16, ge=2)
    """Of each process. A request that waits for a job holds one; at most half of them may wait at a time."""
    max_wait_s: float = Field(default=60.0, ge=0)
    """The longest ``Prefer: wait`` that is honoured."""
    poll_every_s: float = Field(default=0.2, gt=0)
    """How often a waiting request looks at its job."""
    page_size: int = Field(default=20, ge=1)
    max_page_size: int = Field(default=100, ge=1)
    request_timeout_s: int = Field(default=120, ge=1)
    """A process that gives no sign of life for this long is replaced; a slow upload is a sign of life."""
    shutdown_grace_s: int = Field(default=30, ge=0)


class APISettings(SharedSettings):
    """Everything the api needs."""

    api: API = API()
