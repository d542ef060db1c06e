"""The worst mistakes of a checkpoint, with pictures of their faces."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from shared.manifests import Manifest
from worker.training.data.cache import CropCache
from worker.training.evaluation.figures import score_and_judge
from worker.training.scoring.scored_media import ScoredFace, ScoredMedium

MAX_SHOWN: Final = 12
"""Mistakes of each kind that are shown."""


def worst_mistakes(media: Sequence[ScoredMedium], manifest: Manifest) -> list[tuple[ScoredMedium, ScoredFace]]:
    """
    Find the media on the wrong side of the threshold, at most ``MAX_SHOWN`` real ones, then as many fakes, worst first.

    Returns:
        Each medium with its face that is furthest on the wrong side.
    """
    scores, verdicts = score_and_judge(media, manifest)
    called = verdicts.fake
    order = np.argsort(scores, kind="stable").tolist()
    alarms = [media[row] for row in reversed(order) if called[row] and not media[row].is_fake][:MAX_SHOWN]
    misses = [media[row] for row in order if not called[row] and media[row].is_fake][:MAX_SHOWN]
    return [
        *((medium, max(medium.faces, key=lambda face: face.logit)) for medium in alarms),
        *((medium, min(medium.faces, key=lambda face: face.logit)) for medium in misses),
    ]


def describe_mistake(medium: ScoredMedium, face: ScoredFace, manifest: Manifest) -> dict[str, Any]:
    """Describe a medium and the face of it that is shown, as plain values for the report."""
    scale = manifest.calibration.scale
    return {
        "dataset": medium.dataset,
        "key": medium.key,
        "set": medium.set,
        "label": medium.label,
        "method": medium.method,
        "fake_score": medium.fake_score(scale),
        "faces": len(medium.faces),
        "shown": {
            "time_s": face.time_s,
            "fake_score": round(face.fake_score(scale), 6),
            "size_px": face.size_px,
            "sharpness": face.sharpness,
        },
    }


def mistake_pictures(caches: Sequence[Path], worst: Sequence[tuple[ScoredMedium, ScoredFace]]) -> list[bytes]:
    """Return the cached picture of each face, as JPEG, found by another pass over the indices."""
    wanted = {
        (medium.dataset, medium.key, face.time_s, face.frame_box_px): row for row, (medium, face) in enumerate(worst)
    }
    pictures = [b""] * len(worst)
    for cache in map(CropCache, caches) if worst else ():
        for face in cache.read_faces():
            row = wanted.get((face.dataset, face.key, face.time_s, face.frame_box_px))
            if row is not None:
                picture = cv2.cvtColor(cache.read_picture(face), cv2.COLOR_RGB2BGR)
                side = min(240, picture.shape[0])
                small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
                pictures[row] = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    return pictures
