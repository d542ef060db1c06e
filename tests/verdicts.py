"""What the shipped checkpoint's manifest makes of scores, so that no test knows its threshold or its band."""

from collections.abc import Iterable
from typing import Any

from shared.evidence import Evidence
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR, read_manifest
from worker.pipeline.scoring import score_job

SHIPPED = read_manifest(PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT)


UNKNOWN = Evidence("video", 0, 0)
"""Of segments whose results name no faces."""


def evidence_of(document: dict[str, Any]) -> Evidence:
    """What a job's document says of its evidence."""
    return Evidence(**{name: document["evidence"][name] for name in ("kind", "faces", "people", "bits_per_pixel")})


def verdict_of(
    scores: Iterable[float | None], failed_segments: int = 0, evidence: Evidence = UNKNOWN
) -> tuple[str, tuple[str, ...]]:
    """Verdict and reasons of a job whose segments have *scores*; None is one without a face."""
    segments = [(score, ("no_face",) if score is None else ()) for score in scores]
    judged = score_job(segments, failed_segments, SHIPPED, evidence)
    return judged.verdict, judged.reasons
