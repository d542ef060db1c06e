"""Scoring the media of a bundle again, with the pipeline of a server that is installed beside this package."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from deepfakestream.errors import BundleError
from deepfakestream.local import load_local_function

TOLERANCE: Final = 0.005
"""By how much a score may differ. Runtimes and precisions differ by up to 0.0005 on the pictures that they are checked
with; decoders and the boxes of small faces add to that from machine to machine."""

SAMPLE_FPS: Final = (0.1, 30.0)
SEGMENT_SECONDS: Final = (1.0, 60.0)
"""What a service accepts; other numbers could make a scan last for ever."""


def rescore(job: dict[str, Any], scores: Sequence[float | None], media: Path) -> str:
    """
    Scan *media* as the job was scanned, and compare the scores.

    Args:
        job: The document of the job.
        scores: Of its segments, in order.

    Returns:
        A sentence about what was compared.

    Raises:
        BundleError: The scores differ, or the checkpoint and the pipeline that are installed here are others.
        MissingPartError: No server is installed.
    """
    if job["status"] != "succeeded":
        raise BundleError(f"the job has {job['status']}, so there are no scores to compare")
    options, model = job["options"], job["model"]
    _check_sampling(options)
    scan = load_local_function("scan")
    try:
        found = scan(
            media,
            model=options["model"],
            sample_fps=options["sample_fps"],
            segment_seconds=options["segment_seconds"],
        )
    except Exception as error:
        # Errors of the pipeline carry a code; anything else is a defect that deserves its traceback.
        if not hasattr(error, "code"):
            raise
        raise BundleError(f"the media could not be scanned here: {error}") from error
    for name in ("weights_sha256", "pipeline", "temperature", "offset", "preprocessing"):
        if found["model"].get(name) != model.get(name):
            raise BundleError(f"the checkpoint or the pipeline that is installed here has another {name}")
    again = [segment["fake_score"] for segment in found["segments"]]
    if len(again) != len(scores):
        raise BundleError(f"the media has {len(again)} segments here, and {len(scores)} in the bundle")
    pairs = [*zip(again, scores, strict=True), (found["fake_score"], job["fake_score"])]
    if any((here is None) != (there is None) for here, there in pairs):
        raise BundleError("a segment has a score here and none in the bundle, or the other way round")
    largest = max((abs(here - there) for here, there in pairs if here is not None), default=0.0)
    if largest > TOLERANCE:
        raise BundleError(f"a score differs by {largest:.6f} from the one computed here; {TOLERANCE} is allowed")
    if found["verdict"] != job["verdict"]:
        raise BundleError(f"the verdict is {found['verdict']} here, and {job['verdict']} in the bundle")
    return (
        f"Scanned again here, the media has the same verdict, and scores within {largest:.6f} (allowed: {TOLERANCE})."
    )


def _check_sampling(options: dict[str, Any]) -> None:
    for name, (low, high) in (("sample_fps", SAMPLE_FPS), ("segment_seconds", SEGMENT_SECONDS)):
        if not low <= options[name] <= high:
            raise BundleError(f"the option {name} is {options[name]}, which no service accepts")
