"""Settings of the worker: devices, processes, time limits, and what Flower needs."""

import re
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from shared.config import Section, SharedSettings
from worker.cores import available_cores

Role = Literal["cpu", "gpu"]
MAX_CPU_PROCESSES: Final = 4
"""Scoring processes on the CPU that are started unasked."""
_DEVICE = re.compile(r"(cpu|cuda)(:[0-9]+)?")


class Flower(Section):
    """The operators' view of the queue. It never starts without a password."""

    address: str = "127.0.0.1"
    port: int = Field(default=5555, ge=1, le=65535)
    user: str = "operator"
    password: SecretStr | None = None


class Worker(Section):
    """Devices and processes of the gpu role, processes of the cpu role, time limits of both."""

    device: str | list[str] = "cpu"
    """``cpu``, ``cuda``, ``cuda:1`` or a list: one process (or ``processes_per_device``) for each."""
    processes_per_device: int | None = Field(default=None, ge=1)
    """By default one on a GPU; on the CPU one a core, four at most, since each holds a network of its own."""
    threads_per_process: int | None = Field(default=None, ge=1)
    """Threads of one scoring process on the CPU; by default the cores are shared out among the processes."""
    cpu_processes: int = Field(default=2, ge=1)
    """Processes of the cpu role: they wait for ffmpeg, storage and webhook receivers more than they compute."""
    probe_timeout_s: float = Field(default=60.0, gt=0)
    decode_timeout_s: float = Field(default=120.0, gt=0)
    """Wall-clock limit of the decoder of one segment or image."""
    score_time_limit_s: float = Field(default=300.0, gt=0)
    """A process that works on one segment for longer is killed."""
    ingest_time_limit_s: float = Field(default=900.0, gt=0)
    fetch_timeout_s: float = Field(default=600.0, gt=0)
    """Wall-clock limit of fetching a URL source."""
    shutdown_grace_s: float = Field(default=30.0, ge=0)
    """How long a worker that is told to stop may go on with what it has begun."""
    metrics_address: str = "127.0.0.1"
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """Where this worker serves Prometheus metrics; not at all by default."""
    beat_folder: Path | None = None
    """Where beat keeps its schedule; a temporary folder by default, which is enough: every task is idempotent."""
    flower: Flower = Flower()

    @field_validator("device")
    @classmethod
    def _known_devices(cls, value: str | list[str]) -> str | list[str]:
        for device in [value] if isinstance(value, str) else value:
            if not _DEVICE.fullmatch(device):
                raise ValueError(f"{device!r} is neither cpu nor cuda nor cuda:N")
        if not value:
            raise ValueError("at least one device is needed")
        return value

    @property
    def devices(self) -> list[str]:
        """The devices, also where one is given by itself."""
        return [self.device] if isinstance(self.device, str) else self.device

    def processes(self, role: Role) -> int:
        """How many processes a worker of *role* runs."""
        if role == "cpu":
            return self.cpu_processes
        unasked = min(available_cores(), MAX_CPU_PROCESSES) if self.devices == ["cpu"] else 1
        return len(self.devices) * (self.processes_per_device or unasked)

    def device_of(self, process_index: int) -> str:
        """The device of the scoring process with this index, counted from 0."""
        return self.devices[process_index % len(self.devices)]

    def threads(self) -> int:
        """Threads of one scoring process on the CPU."""
        return self.threads_per_process or max(1, available_cores() // self.processes("gpu"))


class WorkerSettings(SharedSettings):
    """Everything a worker needs."""

    worker: Worker = Worker()

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        longest_s = max(self.worker.score_time_limit_s, self.worker.ingest_time_limit_s)
        if longest_s * 2 > self.broker.visibility_timeout_s:
            raise ValueError(
                f"worker time limits of {longest_s:g} s need a broker.visibility_timeout_s of at least twice that,"
                " or Redis delivers tasks again while they run"
            )
        if self.worker.decode_timeout_s >= self.worker.score_time_limit_s:
            raise ValueError("worker.decode_timeout_s must be below worker.score_time_limit_s")
        return self
