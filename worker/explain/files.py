"""Explaining the most suspicious face of each person in one file, in this process."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from shared.config import Limits
from shared.errors import DecodeError
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR, Manifest
from shared.models import Job
from shared.models import Segment as SegmentRow
from worker.config import Worker
from worker.explain.faces import cut_face
from worker.explain.maps import Explainer
from worker.explain.rendering import colour_map, encode_webp, overlay
from worker.local import scan_file
from worker.media.decoding import Frame
from worker.media.frames import read_segments
from worker.media.probe import MediaFacts
from worker.media.segments import Segment
from worker.pipeline.results import FaceResult, PersonResult

REPORT: Final = "explanation.json"
NOTE: Final = (
    "A map shows which parts of the crop raised this checkpoint's score, relative to the hottest place of the same"
    " crop. It does not show where a face was changed, and a real face has a map as well."
)


def explain_file(
    path: Path, folder: Path, *, model: str = DEFAULT_CHECKPOINT, people: int = 10, device: str = "cpu"
) -> dict[str, Any]:
    """
    Scan the image or video at *path*, and explain the face with the highest score of each person.

    Nothing of the file but its pictures is written: no name, no metadata.

    Args:
        folder: Folder to write to, which may exist and must be empty: ``explanation.json``, and of each person the
            pictures ``person-N-crop.webp``, ``person-N-map.webp`` and ``person-N-overlay.webp``.
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
    chosen = _highest_faces(rows, people)
    explainer = Explainer.load(PACKAGED_MODELS_DIR, model, device)
    frames = _read_frames(path, job, rows, chosen)
    folder.mkdir(parents=True, exist_ok=True)
    explained = [
        _explain(person, face, frames[person], explainer, folder) for person, (_, face) in sorted(chosen.items())
    ]
    report = {
        "note": NOTE,
        "model": _describe(explainer.manifest),
        "fake_score": job.fake_score,
        "verdict": job.verdict,
        "reasons": job.reasons,
        "people": explained,
    }
    (folder / REPORT).write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
    return report


def _highest_faces(rows: list[SegmentRow], people: int) -> dict[int, tuple[int, FaceResult]]:
    """Return the highest face of each of the *people* with the highest ones: the place of its segment, and the face."""
    highest: dict[int, tuple[int, FaceResult]] = {}
    for place, row in enumerate(rows):
        for data in (row.result or {}).get("people", []):
            person = PersonResult.from_json(data)
            for face in person.faces:
                known = highest.get(person.person)
                if face.fake_score is not None and (known is None or face.fake_score > _score(known)):
                    highest[person.person] = place, face
    ranked = sorted(highest, key=lambda person: (-_score(highest[person]), person))
    return {person: highest[person] for person in ranked[:people]}


def _score(chosen: tuple[int, FaceResult]) -> float:
    return chosen[1].fake_score or 0.0


def _read_frames(
    path: Path, job: Job, rows: list[SegmentRow], chosen: Mapping[int, tuple[int, FaceResult]]
) -> dict[int, Frame]:
    """Decode the segments of the chosen faces again, as for scoring, and return each person's frame."""
    if job.media is None or job.media.facts is None:
        raise ValueError("the job was not scanned")
    facts = MediaFacts.from_json(job.media.facts, job.media.presentation)
    places = sorted({place for place, _ in chosen.values()})
    plan = [Segment(rows[place].index, rows[place].start_s, rows[place].end_s) for place in places]
    found: dict[int, Frame] = {}
    frames = read_segments(
        path,
        facts,
        plan,
        sample_fps=job.sample_fps,
        timeout_s=Worker().decode_timeout_s,
        limits=Limits().for_media(),
    )
    for place in places:
        for frame in iter(lambda: next(frames), None):
            for person, (segment, face) in chosen.items():
                distance = abs(frame.time_s - face.time_s)
                known = found.get(person)
                if segment == place and (known is None or distance < abs(known.time_s - face.time_s)):
                    found[person] = frame
    if len(found) < len(chosen):
        raise DecodeError("frames that were scored could not be decoded again")
    return found


def _explain(person: int, face: FaceResult, frame: Frame, explainer: Explainer, folder: Path) -> dict[str, Any]:
    crop = cut_face(frame, face, explainer.manifest.preprocessing)
    [heat] = explainer.explain_faces([crop])
    pictures = {"crop": crop, "map": colour_map(heat.values), "overlay": overlay(crop, heat.values)}
    files = {name: f"person-{person}-{name}.webp" for name in pictures}
    for name, picture in pictures.items():
        (folder / files[name]).write_bytes(encode_webp(picture))
    return {
        "person": person,
        "face_score": face.fake_score,
        "time_s": face.time_s,
        "box_px": list(face.box_px),
        "turned_deg": face.turned_deg,
        "explained_score": heat.fake_score,
        "score_without_hottest_tenth": heat.fake_score_hidden,
        "files": files,
    }


def _describe(manifest: Manifest) -> dict[str, Any]:
    return {"name": manifest.name, "version": manifest.version, "weights_sha256": manifest.weights.sha256}
