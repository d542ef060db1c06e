"""Settings of the worker: devices, processes, time limits, and Flower."""

import re
import ssl
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from shared.config import Section, SharedSettings
from worker.cores import available_cores

Role = Literal["cpu", "gpu", "stream"]
MAX_CPU_PROCESSES: Final = 4
"""Default limit of scoring processes on the CPU."""
DEVICE: Final = re.compile(r"(cpu|cuda)(:[0-9]+)?")
"""Names of devices."""


class Flower(Section):
    """Settings of Flower, the operators' view of the queue, which does not start without a password."""

    address: str = "127.0.0.1"
    port: int = Field(default=5555, ge=1, le=65535)
    user: str = "operator"
    password: SecretStr | None = None
    url_prefix: str = Field(default="", pattern=r"^(/?[A-Za-z0-9._-]+)*/?$")
    """Path below which a reverse proxy serves Flower, such as ``flower``; the proxy must pass it on."""


class Worker(Section):
    """Devices and processes of the gpu role, processes of the cpu role, time limits of both, and streams of readers."""

    device: str | list[str] = "cpu"
    """``cpu``, ``cuda``, ``cuda:1`` or a list of these; each gets one process, or ``processes_per_device``."""
    processes_per_device: int | None = Field(default=None, ge=1)
    """By default one on a GPU; on the CPU one per core, at most four, since each loads its own network."""
    threads_per_process: int | None = Field(default=None, ge=1)
    """Threads of one scoring process on the CPU; by default the cores divided by the number of processes."""
    cpu_processes: int = Field(default=2, ge=1)
    """Processes of the cpu role; these mostly wait for ffmpeg, storage and webhook receivers."""
    streams: int = Field(default=4, ge=1)
    """Live streams that one process of the stream role reads at a time."""
    probe_timeout_s: float = Field(default=60.0, gt=0)
    decode_timeout_s: float = Field(default=120.0, gt=0)
    """Wall-clock limit of the decoder of one segment or image."""
    score_time_limit_s: float = Field(default=300.0, gt=0)
    """A process that works on one segment, or on one explanation, for longer than this is killed. An explanation ends
    after three quarters of it."""
    ingest_time_limit_s: float = Field(default=900.0, gt=0)
    fetch_timeout_s: float = Field(default=600.0, gt=0)
    """Wall-clock limit of fetching a URL source."""
    shutdown_grace_s: float = Field(default=30.0, ge=0)
    """How long a worker may go on with running tasks after SIGTERM."""
    metrics_address: str = "127.0.0.1"
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """Port on which this worker serves Prometheus metrics; none by default."""
    beat_folder: Path | None = None
    """Folder of beat's schedule; a temporary folder by default, which is enough since every task is idempotent."""
    flower: Flower = Flower()

    @field_validator("device")
    @classmethod
    def _known_devices(cls, value: str | list[str]) -> str | list[str]:
        for device in [value] if isinstance(value, str) else value:
            if not DEVICE.fullmatch(device):
                raise ValueError(f"unknown device {device!r}; use cpu, cuda or cuda:N")
        if not value:
            raise ValueError("no device given; name at least one")
        return value

    @property
    def devices(self) -> list[str]:
        """The devices as a list."""
        return [self.device] if isinstance(self.device, str) else self.device

    def processes(self, role: Role) -> int:
        """Return how many processes a worker of *role* runs."""
        if role == "stream":
            return 1
        if role == "cpu":
            return self.cpu_processes
        default = min(available_cores(), MAX_CPU_PROCESSES) if self.devices == ["cpu"] else 1
        return len(self.devices) * (self.processes_per_device or default)

    def device_of(self, process_index: int) -> str:
        """Return the device of the scoring process with this index, counted from 0."""
        return self.devices[process_index % len(self.devices)]

    def threads(self) -> int:
        """Return the number of threads of one scoring process on the CPU."""
        return self.threads_per_process or max(1, available_cores() // self.processes("gpu"))


class Provenance(Section):
    """Content Credentials (C2PA) in uploaded media; see ``docs/reports.md``."""

    trust_anchors_file: Path | None = None
    """PEM file of the certificates that vouch for signers; without one no signer is trusted."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Wall-clock limit of reading them, for which the whole file is read if there are any."""

    @field_validator("trust_anchors_file")
    @classmethod
    def _has_certificates(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(value)
        except ssl.SSLError as error:
            raise ValueError("must be a file of certificates in PEM form, and one is missing or damaged") from error
        except OSError as error:
            raise ValueError(f"cannot be read ({error.strerror})") from error
        return value


class WorkerSettings(SharedSettings):
    """All settings of a worker."""

    provenance: Provenance = Provenance()
    worker: Worker = Worker()

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        longest_s = max(self.worker.score_time_limit_s, self.worker.ingest_time_limit_s)
        if longest_s * 2 > self.broker.visibility_timeout_s:
            raise ValueError(
                f"broker.visibility_timeout_s is less than twice the worker's longest time limit of {longest_s:g} s,"
                " so that Redis would deliver tasks again while they run; raise it or lower the time limit"
            )
        if self.worker.decode_timeout_s >= self.worker.score_time_limit_s:
            raise ValueError("worker.decode_timeout_s must be below worker.score_time_limit_s")
        return self
