"""
Checkpoint manifests: what defines a result, readable without torch.

A checkpoint is a folder ``<models_dir>/<name>/`` with ``manifest.json``, ``MODEL_CARD.md`` and
``weights.safetensors``. The api lists manifests and takes option defaults from them; the worker
loads the network they describe.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shared.drift import BINS
from shared.errors import ModelError, UnknownModelError
from shared.evidence import Evidence

PACKAGED_MODELS_DIR = Path(__file__).parent / "checkpoints"
"""The checkpoints that come with the project."""
DEFAULT_CHECKPOINT = "swap-lite2"
"""The one among them that judges when nobody asks for another."""

PIPELINE_VERSION: Final = 4
"""Counts changes to decoding, detection, cropping, averaging and judging that can move a score or a verdict. Results
name it, and are taken over only where it is the same."""

Backbone = Literal[
    "efficientnet-lite0",
    "efficientnet-lite1",
    "efficientnet-lite2",
    "efficientnet-b0",
    "efficientnet-b1",
    "efficientnet-b2",
    "efficientnet-b3",
    "efficientnet-b4",
]
SCORE_DIGITS: Final = 6
"""Of every score and bound: fine enough to lose nothing, coarse enough that every route prints the same."""

Score = Annotated[float, Field(ge=0.0, le=1.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Weights(_Frozen):
    """Where the parameters are."""

    file: str
    """Beside the manifest."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the file."""


class Architecture(_Frozen):
    """The network: SRM residuals, with or without the colour planes, into an EfficientNet and a small head."""

    backbone: Backbone
    """Lite networks have no squeeze-and-excitation, and ReLU6 for swish, as their authors cut them for CPUs."""
    input_planes: Literal["rgb+srm", "srm", "rgb"]
    residual_scale: Literal["grey-levels", "own-level"] = "grey-levels"
    """Of SRM planes: as they are, or relative to the mean residual of the crop they come from, so that a noisy and a
    smooth recording look alike and what is left is how residuals are spread over one picture."""
    head_channels: int = Field(gt=0)
    dropout: float = Field(ge=0.0, lt=1.0)


class Preprocessing(_Frozen):
    """From a frame to a crop: part of what defines a score, so it travels with the checkpoint."""

    crop_size_px: int = Field(ge=32)
    """Side of the square crop that the network sees."""
    crop_margin: float = Field(ge=0.0)
    """Added on each side of the face box, as a share of its larger side."""
    min_face_px: int = Field(ge=20)
    """Smaller side a face box must have to be scored; the detector looks for faces of at least this size."""
    min_sharpness: float = Field(ge=0.0)
    """Variance of the Laplacian of the face at 96 px, 8-bit luma; below it a face is called blurred."""
    min_confidence: float = Field(ge=0.0, le=1.0)
    """O-Net probability that a detection needs."""
    detector_thresholds: tuple[Score, Score, Score] = (0.6, 0.7, 0.7)
    """P-, R- and O-Net thresholds of the cascade."""


class Sampling(_Frozen):
    """Which frames are looked at unless the request says otherwise."""

    sample_fps: float = Field(gt=0.0, le=30.0)
    segment_seconds: float = Field(ge=1.0, le=60.0)


class Bound(_Frozen):
    """
    A bound on a job's score that moves with the evidence; its values are log-odds of the score.

    It lies at ``many + (one - many) / faces + step * log2(people)`` with ``step = doubling_many + (doubling -
    doubling_many) / faces``: the variance of a mean over faces of one person falls to what clips differ by as one over
    their number, and the highest of several people lies higher, by less where each is a mean over many faces.
    """

    one: float
    """For one face of one person."""
    many: float
    """Towards which it moves with the number of that person's faces."""
    doubling: float = 0.0
    """What it moves by where twice as many people were seen, one face of each."""
    doubling_many: float | None = None
    """Towards which that moves with the number of faces; where it is not given, ``doubling`` holds for all."""

    def score_at(self, evidence: Evidence) -> float:
        """The bound as a score, in [0, 1]."""
        return Scale(1.0).probability(self.log_odds_at(evidence))

    def log_odds_at(self, evidence: Evidence) -> float:
        """The bound in log-odds."""
        faces, people = max(1, evidence.faces), max(1.0, evidence.people)
        doubling_many = self.doubling if self.doubling_many is None else self.doubling_many
        step = doubling_many + (self.doubling - doubling_many) / faces
        return self.many + (self.one - self.many) / faces + step * math.log2(people)


class Bounds(_Frozen):
    """Where ``real`` ends and where ``fake`` begins, for one kind of media."""

    low: Bound
    high: Bound


class Limits(NamedTuple):
    """Where ``real`` ends and where ``fake`` begins for one job: scores in [low, high) are inconclusive."""

    low: float
    high: float


class Scale(NamedTuple):
    """From a network's logit to a calibrated probability."""

    temperature: float
    offset: float = 0.0

    def probability(self, logit: float) -> float:
        """Return the probability of being fake, in [0, 1]."""
        return float(self.probabilities(logit, math.tanh))

    def probabilities(self, logits: Any, tanh: Callable[[Any], Any]) -> Any:
        """
        Apply the logistic function, in the form that never overflows, to a logit or to an array of them.

        Args:
            logits: Of the type that *tanh* takes, such as a NumPy array of any shape for ``numpy.tanh``.
            tanh: The hyperbolic tangent of the library that *logits* belong to, which this module does not import.

        Returns:
            Probabilities of being fake, in [0, 1], of the same type, shape and precision.
        """
        return 0.5 + 0.5 * tanh(0.5 * (logits - self.offset) / self.temperature)


class Calibration(_Frozen):
    """From a logit to a probability and a verdict."""

    temperature: float = Field(gt=0.0)
    offset: float = 0.0
    """Taken from a logit before it is divided by the temperature."""
    threshold: Score
    uncertainty_band: tuple[Score, Score]
    """[low, high]: job scores inside it are inconclusive. Both are for one face of one person, where ``bounds`` says
    more."""
    bounds: dict[Literal["image", "video"], Bounds] | None = None
    """By kind of media; where there are none, threshold and band hold for all evidence."""
    min_bits_per_pixel: float | None = Field(default=None, gt=0.0)
    """Below this (``shared.evidence.bits_per_pixel``) a video is compressed too heavily to be called real."""

    @model_validator(mode="after")
    def _band_holds_threshold(self) -> Self:
        low, high = self.uncertainty_band
        if not low <= self.threshold <= high:
            raise ValueError("the uncertainty band must contain the threshold")
        return self

    @property
    def scale(self) -> Scale:
        """What makes a probability of a logit."""
        return Scale(self.temperature, self.offset)

    def limits(self, evidence: Evidence) -> Limits:
        """Where ``real`` ends and where ``fake`` begins, given what the score was made from."""
        bounds = (self.bounds or {}).get(evidence.kind)
        if bounds is None:
            return Limits(*self.uncertainty_band)
        high = round(bounds.high.score_at(evidence), SCORE_DIGITS)
        return Limits(min(round(bounds.low.score_at(evidence), SCORE_DIGITS), high), high)

    def evidence_fields(self) -> dict[str, Any]:
        """What goes beyond temperature, threshold and band, for ``Manifest.describe``; empty where nothing does."""
        if self.bounds is None and self.offset == 0.0 and self.min_bits_per_pixel is None:
            return {}
        return self.model_dump(mode="json", include={"offset", "bounds", "min_bits_per_pixel"})

    def is_heavily_compressed(self, evidence: Evidence) -> bool:
        """Whether a swap may have been compressed out of sight."""
        if self.min_bits_per_pixel is None or evidence.bits_per_pixel is None:
            return False
        return evidence.bits_per_pixel < self.min_bits_per_pixel


class Manifest(_Frozen):
    """Everything about a checkpoint but its parameters."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    version: str
    trained: bool
    architecture: Architecture
    preprocessing: Preprocessing
    sampling: Sampling
    calibration: Calibration
    weights: Weights
    reference_shares: tuple[Share, ...] | None = Field(default=None, min_length=BINS, max_length=BINS)
    """Of the scores of real validation media, by tenths of [0, 1]: what drift is measured against."""
    training_data: list[str] = []
    metrics: dict[str, float] = {}
    licence: str = "Apache-2.0"

    def pin(self) -> dict[str, Any]:
        """Everything that decides a result, as JSON: a job keeps it, whatever becomes of the checkpoint's folder."""
        left_out = {"training_data", "metrics", "reference_shares"}
        # Without defaults, so that a release that knows no newer field understands what does not use it.
        return self.model_dump(mode="json", exclude=left_out, exclude_defaults=True)

    @classmethod
    def from_pin(cls, data: dict[str, Any]) -> Self:
        """
        Read what ``pin`` wrote.

        Raises:
            ModelError: This release does not understand it.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ModelError("the job's checkpoint needs a newer release of this service") from error

    def describe(self, *, sample_fps: float, segment_seconds: float) -> dict[str, Any]:
        """Everything that produced a result, so that it can be defended and repeated."""
        return {
            "name": self.name,
            "version": self.version,
            "trained": self.trained,
            "weights_sha256": self.weights.sha256,
            "threshold": self.calibration.threshold,
            "uncertainty_band": list(self.calibration.uncertainty_band),
            "temperature": self.calibration.temperature,
            **self.calibration.evidence_fields(),
            "architecture": self.architecture.model_dump(mode="json"),
            "preprocessing": self.preprocessing.model_dump(mode="json"),
            "pipeline": PIPELINE_VERSION,
            "sampling": {"sample_fps": sample_fps, "segment_seconds": segment_seconds},
        }


def read_manifest(folder: Path) -> Manifest:
    """
    Read the manifest of the checkpoint in *folder*.

    Raises:
        ModelError: There is none, or it does not validate.
    """
    try:
        return Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    except OSError as error:
        raise ModelError(f"checkpoint {folder.name!r} has no readable manifest") from error
    except ValidationError as error:
        name = folder.name
        for mistake in error.errors():
            # A checkpoint from a newer version, most likely: its other mistakes would only hide that.
            if mistake["loc"] == ("architecture", "backbone") and mistake["type"] == "literal_error":
                known = ", ".join(get_args(Backbone))
                message = f"checkpoint {name!r} has the unknown backbone {mistake['input']!r}; known are {known}"
                raise ModelError(message) from error
        raise ModelError(f"the manifest of checkpoint {name!r} is invalid: {error}") from error


def find_manifest(models_dir: Path, name: str) -> Manifest:
    """The manifest of the checkpoint *name* below *models_dir*. Raises UnknownModelError."""
    known = list_manifests(models_dir)
    if name not in known:
        raise UnknownModelError(f"there is no model {name!r}; there are {', '.join(known)}")
    return known[name]


def list_manifests(models_dir: Path) -> dict[str, Manifest]:
    """
    Name → manifest of every checkpoint folder below *models_dir*, in order of name.

    Those that cannot be read are left out, so that one of them does not keep the others from serving;
    ``check_manifests`` tells why.
    """
    manifests, _ = _read_manifests(models_dir)
    return {manifest.name: manifest for manifest in manifests}


def check_manifests(models_dir: Path, default: str) -> list[str]:
    """
    Look at every manifest below *models_dir* when a service starts.

    Returns:
        Why those that cannot be read are refused, one sentence each. The service can do without them.

    Raises:
        ModelError: The one of the checkpoint *default* is among them.
    """
    _, refused = _read_manifests(models_dir)
    if default in refused:
        raise refused[default]
    return [str(error) for error in refused.values()]


def _read_manifests(models_dir: Path) -> tuple[list[Manifest], dict[str, ModelError]]:
    """The manifests below a folder, and by the names of their folders why others cannot be read."""
    manifests: list[Manifest] = []
    refused: dict[str, ModelError] = {}
    for file in sorted(models_dir.glob("*/manifest.json")):
        try:
            manifests.append(read_manifest(file.parent))
        except ModelError as error:
            refused[file.parent.name] = error
    return manifests, refused
