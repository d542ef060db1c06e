"""Explaining the most suspicious face of each person in one file, in this process."""

import json
from pathlib import Path
from typing import Any, Final

from shared.config import Limits
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR
from worker.config import Worker
from worker.explain.choosing import PEOPLE, FaceChoice
from worker.explain.maps import Explainer
from worker.explain.people import explain_people
from worker.local import scan_file
from worker.media.probe import MediaFacts
from worker.media.segments import Segment

REPORT: Final = "explanation.json"


def explain_file(
    path: Path, folder: Path, *, model: str = DEFAULT_CHECKPOINT, people: int = PEOPLE, device: str = "cpu"
) -> dict[str, Any]:
    """
    Scan the image or video at *path*, and explain the face with the highest score of each person.

    Nothing of the file but its pictures is written: no name, no metadata.

    Args:
        folder: Folder to write to, which may exist and must be empty: ``explanation.json``, and of each person the
            pictures ``person-N-crop.webp``, ``person-N-map.webp`` and ``person-N-overlay.webp``, and up to six
            ``person-N-thumbnail-M.webp`` over time.
        people: Largest number of people, the most suspicious ones.

    Returns:
        The content of ``explanation.json``.

    Raises:
        FileExistsError: The folder holds something, or is a file.
        DeepfakeStreamError: The file cannot be scanned, or there is no such checkpoint.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is not an empty folder; name a new one")
    job, rows = scan_file(path, model=model, device=device)
    if job.media is None or job.media.facts is None:
        raise ValueError("the job was not scanned")
    choice = FaceChoice(people)
    for row in rows:
        choice.add(row.index, (row.result or {}).get("people", []))
    plan = {row.index: Segment(row.index, row.start_s, row.end_s) for row in rows}
    explainer = Explainer.load(PACKAGED_MODELS_DIR, model, device)
    explained = explain_people(
        path,
        MediaFacts.from_json(job.media.facts, job.media.presentation),
        plan,
        choice.choose(plan),
        explainer,
        sample_fps=job.sample_fps,
        timeout_s=Worker().decode_timeout_s,
        limits=Limits().for_media(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in explained.images.items():
        (folder / name).write_bytes(data)
    outcome = {"fake_score": job.fake_score, "verdict": job.verdict, "reasons": job.reasons}
    report = {**explained.to_json(explainer.manifest), **outcome}
    (folder / REPORT).write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
    return report
