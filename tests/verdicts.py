"""What the shipped checkpoint's manifest makes of a document, so that no test knows its threshold or its band."""

from typing import Any

from shared.evidence import Evidence
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR, Limits, read_manifest
from worker.pipeline.results import PersonVerdict
from worker.pipeline.scoring import score_job
from worker.pipeline.verdicts import Findings

SHIPPED = read_manifest(PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT)


def verdict_of(document: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Verdict and reasons that follow from what a job's document says of its segments, evidence and people."""
    evidence = Evidence(**{name: document["evidence"][name] for name in ("kind", "faces", "people", "bits_per_pixel")})
    seen = [segment for segment in document["segments"] if segment["status"] != "failed"]
    scores = [(segment["fake_score"], segment["reasons"]) for segment in seen]
    findings = Findings(tuple(_person(person) for person in document["people"]))
    judged = score_job(scores, len(document["segments"]) - len(seen), SHIPPED, evidence, findings)
    return judged.verdict, judged.reasons


def _person(document: dict[str, Any]) -> PersonVerdict:
    score, verdict = document["fake_score"], document["verdict"]
    limits = None if score is None else Limits(document["real_below"], document["fake_from"])
    by_mean = limits and ("fake" if score >= limits.high else "inconclusive" if score >= limits.low else "real")
    seen = tuple((span["start_s"], span["end_s"]) for span in document["seen"])
    face = document["face"]
    counts = document["faces"], document["faces_scored"]
    box = tuple(face["box_px"])
    return PersonVerdict(
        document["person"], score, verdict, verdict != by_mean, limits, *counts, seen, face["time_s"], box
    )
