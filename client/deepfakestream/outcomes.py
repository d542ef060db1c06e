"""The outcomes of one command that scans: each source's, and what they amount to together."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from deepfakestream.results import Job, Model
from deepfakestream.terminal import pluralize

ALWAYS_COUNTED = ("real", "fake", "inconclusive", "failed")
"""Outcomes that a summary counts even where there are none; others only where there are some."""


@dataclass(frozen=True, slots=True)
class ScanResult:
    """
    The outcome for one source: its job, or the error that prevented the scan.

    Attributes:
        known_verdict: The verdict of a job that could not be read, where a batch has named it.
    """

    source: str
    job: Job | None
    error: Exception | None
    known_verdict: str | None = None

    @property
    def verdict(self) -> str | None:
        """The verdict, as far as it is known."""
        return self.known_verdict if self.job is None else self.job.verdict

    @property
    def outcome(self) -> str:
        """The verdict of a job that has succeeded, ``failed`` without a job, or the status of the job."""
        if self.job is None:
            return "failed"
        return (self.job.verdict or "no verdict") if self.job.status == "succeeded" else self.job.status


def describe_outcomes(results: Sequence[ScanResult], seconds: float, *, submitted_only: bool = False) -> str:
    """
    Describe all results in one line, such as ``3 files in 4.2 s: 1 real, 1 fake, 0 inconclusive, 1 failed``.

    Args:
        seconds: How long the command took.
        submitted_only: Nothing was waited for, so that there are no verdicts.
    """
    if submitted_only:
        failed = sum(result.job is None for result in results)
        counted = f"{len(results) - failed} submitted, {failed} failed"
    else:
        counts = Counter(result.outcome for result in results)
        others = sorted(counts.keys() - set(ALWAYS_COUNTED))
        counted = ", ".join(f"{counts[name]} {name.replace('_', ' ')}" for name in (*ALWAYS_COUNTED, *others))
    return f"{pluralize(len(results), 'file')} in {seconds:.1f} s: {counted}"


def describe_models(results: Sequence[ScanResult]) -> list[str]:
    """Describe each checkpoint behind the results, in one line each, and where its limits are described."""
    jobs = [result.job for result in results if result.job is not None]
    found: dict[tuple[str, str, str], Model] = {}
    for job in jobs:
        if job.model is not None and job.status == "succeeded":
            found.setdefault((job.model.name, job.model.version, job.model.weights_sha256), job.model)
    lines = [
        f"model   {model.name} {model.version}, weights sha256 {model.weights_sha256[:12]}…" for model in found.values()
    ]
    return lines and [*lines[:-1], f"{lines[-1]}; how far to trust it: deepfakestream models --card"]
