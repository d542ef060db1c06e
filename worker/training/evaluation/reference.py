"""The reference of a checkpoint: what its validation set is like, with which a service compares what it is given."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal

from shared.inputs import BINS_VERSION, FaceCounts, Property, count_faces
from shared.manifests import Manifest
from shared.references import REFERENCE_FILE, JudgedReference, KindReference, Reference
from shared.states import Verdict
from worker.detection.faces import DetectedFace, measure_quality
from worker.training.data.cache import CachedFace, CropCache
from worker.training.scoring.scored_media import ScoredMedium, select_faces

SET: Final = "validation"
Kind = Literal["image", "video"]
Label = Literal["real", "fake"]


def make_reference(manifest: Manifest, caches: Sequence[Path], media: Sequence[ScoredMedium]) -> Reference:
    """
    Describe the validation set of a checkpoint: its faces as the service counts them, and the verdicts on its media.

    Args:
        manifest: The manifest with its calibration.
        caches: Crop caches of the data sets that it is judged by.
        media: Their scored media of the validation set.

    Raises:
        DataError: A cache is missing or damaged.
    """
    counted: dict[Kind, list[FaceCounts]] = {"image": [], "video": []}
    for is_video, counts in chain.from_iterable(_count_media(CropCache(folder), manifest) for folder in caches):
        counted["video" if is_video else "image"].append(counts)
    labels: tuple[Label, ...] = ("real", "fake")
    return Reference(
        weights_sha256=manifest.weights.sha256,
        bins=BINS_VERSION,
        kinds={kind: _sum_counts(counts) for kind, counts in counted.items() if counts},
        judged={label: _judge([each for each in media if each.label == label], manifest) for label in labels},
    )


def write_reference(folder: Path, reference: Reference) -> None:
    """Write *reference* beside the manifest in *folder*."""
    (folder / REFERENCE_FILE).write_text(reference.model_dump_json(indent=2) + "\n")


def _count_media(cache: CropCache, manifest: Manifest) -> Iterator[tuple[bool, FaceCounts]]:
    """Yield, for each medium of the validation set, whether it is a video, and its faces that serving would score."""
    for faces in select_faces(cache, {SET}, manifest):
        yield faces[0].is_video, count_faces(_describe(cache, face) for face in faces)


def _describe(cache: CropCache, face: CachedFace) -> dict[str, Any]:
    # By serving's own function. Size and sharpness are those of the face in its frame, which the picture may not have.
    quality = measure_quality(cache.read_picture(face), DetectedFace(face.box_px, face.landmarks_px, 1.0))
    return {
        "fake_score": 0.0,  # Only that it has one is counted.
        Property.SIZE: face.size_px,
        Property.SHARPNESS: face.sharpness,
        Property.LUMA: quality.luma,
    }


def _sum_counts(counted: Sequence[FaceCounts]) -> KindReference:
    return KindReference(
        media=len(counted),
        faces=sum(counts.faces for counts in counted),
        **{each.value: _add_bins(counts.bins[each] for counts in counted) for each in Property},
    )


def _add_bins(bins: Iterable[Sequence[float]]) -> tuple[float, ...]:
    return tuple(round(sum(column), 2) for column in zip(*bins, strict=True))


def _judge(media: Sequence[ScoredMedium], manifest: Manifest) -> JudgedReference:
    scale = manifest.calibration.scale
    in_band, verdicts = 0, dict.fromkeys(map(str, Verdict), 0)
    for medium in media:
        low, high = manifest.calibration.limits(medium.evidence(scale))
        in_band += low <= medium.fake_score(scale) < high
        verdicts[medium.verdict(manifest)] += 1
    return JudgedReference(media=len(media), scores_in_band=in_band, verdicts=verdicts)
