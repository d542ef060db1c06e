"""
Checkpoint manifests: everything that defines a result, readable without torch.

A checkpoint is a folder ``<models_dir>/<name>/`` with ``manifest.json``, ``MODEL_CARD.md`` and
``weights.safetensors``, and with ``reference.json`` (``shared.references``), on which no result depends. The api lists
manifests and takes option defaults from them; the worker loads the network they describe.
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
"""The checkpoint that is used unless a request names another."""

PIPELINE_VERSION: Final = 4
"""
Version of decoding, detection, cropping, averaging and judging; it is raised by every change that can move a score or a
verdict. Results record it, and are reused only if it is the same.
"""

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
"""Decimal digits of every score and bound, so that they print the same everywhere."""

Score = Annotated[float, Field(ge=0.0, le=1.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Weights(_Frozen):
    """The file with the parameters."""

    file: str
    """Name of the file, in the folder of the manifest."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the file."""


class Architecture(_Frozen):
    """The network: SRM residuals, colour planes or both, an EfficientNet and a small head."""

    backbone: Backbone
    """Lite networks have no squeeze-and-excitation, and ReLU6 instead of swish."""
    input_planes: Literal["rgb+srm", "srm", "rgb"]
    residual_scale: Literal["grey-levels", "own-level"] = "grey-levels"
    """
    Scale of the SRM planes: grey levels, or relative to the mean residual of the crop. The latter makes noisy and
    smooth recordings alike and leaves the distribution of residuals over the image.
    """
    head_channels: int = Field(gt=0)
    dropout: float = Field(ge=0.0, lt=1.0)


class Preprocessing(_Frozen):
    """The steps from a frame to a crop. They define the score, so they are part of the checkpoint."""

    crop_size_px: int = Field(ge=32)
    """Side of the square crop that the network sees."""
    crop_margin: float = Field(ge=0.0)
    """Margin on each side of the face box, as a share of its larger side."""
    min_face_px: int = Field(ge=20)
    """The least smaller side of a face box to be scored; also the minimum size of the detector."""
    min_sharpness: float = Field(ge=0.0)
    """The least variance of the Laplacian, of the face at 96 px in 8-bit luma; below it a face is blurred."""
    min_confidence: float = Field(ge=0.0, le=1.0)
    """The least O-Net probability of a detection."""
    detector_thresholds: tuple[Score, Score, Score] = (0.6, 0.7, 0.7)
    """P-, R- and O-Net thresholds of the cascade."""


class Sampling(_Frozen):
    """Default sampling of frames, which a request can override."""

    sample_fps: float = Field(gt=0.0, le=30.0)
    segment_seconds: float = Field(ge=1.0, le=60.0)


class Bound(_Frozen):
    """
    A bound on a job's score that moves with the evidence; its values are log-odds of the score.

    The bound is ``many + (one - many) / faces + step * log2(people)`` with ``step = doubling_many + (doubling -
    doubling_many) / faces``. The variance of the mean over one person's faces falls, as one over their number, to the
    variance between clips. The maximum over several people is higher, but less so for means over many faces.
    """

    one: float
    """The bound for one face of one person."""
    many: float
    """The limit of the bound for many faces of one person."""
    doubling: float = 0.0
    """Increase of the bound when the number of people doubles, for one face each."""
    doubling_many: float | None = None
    """The limit of that increase for many faces; by default ``doubling``, for any number of faces."""

    def score_at(self, evidence: Evidence) -> float:
        """Return the bound as a score, in [0, 1]."""
        return Scale(1.0).probability(self.log_odds_at(evidence))

    def log_odds_at(self, evidence: Evidence) -> float:
        """Return the bound in log-odds."""
        faces, people = max(1, evidence.faces), max(1.0, evidence.people)
        doubling_many = self.doubling if self.doubling_many is None else self.doubling_many
        step = doubling_many + (self.doubling - doubling_many) / faces
        return self.many + (self.one - self.many) / faces + step * math.log2(people)


class Bounds(_Frozen):
    """The upper bound of ``real`` and the lower bound of ``fake``, for one kind of media."""

    low: Bound
    high: Bound


class Limits(NamedTuple):
    """The limits of one job: scores below *low* are real, from *high* on fake, between them inconclusive."""

    low: float
    high: float


class Scale(NamedTuple):
    """Temperature and offset that turn a logit into a calibrated probability."""

    temperature: float
    offset: float = 0.0

    def probability(self, logit: float) -> float:
        """Return the probability of being fake, in [0, 1]."""
        return float(self.probabilities(logit, math.tanh))

    def probabilities(self, logits: Any, tanh: Callable[[Any], Any]) -> Any:
        """
        Apply the logistic function, in the form that never overflows, to a logit or to an array of them.

        Args:
            logits: Logits in the type that *tanh* takes, such as a NumPy array of any shape for ``numpy.tanh``.
            tanh: The hyperbolic tangent of the library of *logits*, since this module imports none.

        Returns:
            Probabilities of being fake, in [0, 1], in the type, shape and precision of *logits*.
        """
        return 0.5 + 0.5 * tanh(0.5 * (logits - self.offset) / self.temperature)


class Calibration(_Frozen):
    """The steps from a logit to a probability and a verdict."""

    temperature: float = Field(gt=0.0)
    offset: float = 0.0
    """Subtracted from a logit before it is divided by the temperature."""
    threshold: Score
    uncertainty_band: tuple[Score, Score]
    """
    [low, high): job scores inside it are inconclusive. If ``bounds`` are given, threshold and band are those of one
    face of one person.
    """
    bounds: dict[Literal["image", "video"], Bounds] | None = None
    """Bounds by kind of media; without them, threshold and band apply to all evidence."""
    min_bits_per_pixel: float | None = Field(default=None, gt=0.0)
    """Videos with fewer bits per pixel (``shared.evidence``) are compressed too heavily to be called real."""

    @model_validator(mode="after")
    def _band_holds_threshold(self) -> Self:
        low, high = self.uncertainty_band
        if not low <= self.threshold <= high:
            raise ValueError("the uncertainty band must contain the threshold")
        return self

    @property
    def scale(self) -> Scale:
        """The scale that turns a logit into a probability."""
        return Scale(self.temperature, self.offset)

    def limits(self, evidence: Evidence) -> Limits:
        """Return the limits of ``real`` and ``fake`` for a score with this evidence."""
        bounds = (self.bounds or {}).get(evidence.kind)
        if bounds is None:
            return Limits(*self.uncertainty_band)
        high = round(bounds.high.score_at(evidence), SCORE_DIGITS)
        return Limits(min(round(bounds.low.score_at(evidence), SCORE_DIGITS), high), high)

    def evidence_fields(self) -> dict[str, Any]:
        """Return the fields beyond temperature, threshold and band, for ``Manifest.describe``; empty if none is set."""
        if self.bounds is None and self.offset == 0.0 and self.min_bits_per_pixel is None:
            return {}
        return self.model_dump(mode="json", include={"offset", "bounds", "min_bits_per_pixel"})

    def is_heavily_compressed(self, evidence: Evidence) -> bool:
        """Return whether compression may have hidden a swap."""
        if self.min_bits_per_pixel is None or evidence.bits_per_pixel is None:
            return False
        return evidence.bits_per_pixel < self.min_bits_per_pixel


class Manifest(_Frozen):
    """Everything about a checkpoint except its parameters."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    version: str
    trained: bool
    architecture: Architecture
    preprocessing: Preprocessing
    sampling: Sampling
    calibration: Calibration
    weights: Weights
    reference_shares: tuple[Share, ...] | None = Field(default=None, min_length=BINS, max_length=BINS)
    """Shares of the scores of real validation media in bins of [0, 1], the reference for drift."""
    training_data: list[str] = []
    metrics: dict[str, float] = {}
    licence: str = "Apache-2.0"

    def pin(self) -> dict[str, Any]:
        """Return everything that decides a result, as JSON. A job keeps it, independent of the checkpoint's folder."""
        left_out = {"training_data", "metrics", "reference_shares"}
        # Defaults are left out, so that an older release can read manifests that do not use newer fields.
        return self.model_dump(mode="json", exclude=left_out, exclude_defaults=True)

    @classmethod
    def from_pin(cls, data: dict[str, Any]) -> Self:
        """
        Read a manifest that ``pin`` wrote.

        Raises:
            ModelError: A newer release wrote it, and this one cannot read it.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ModelError("the job's checkpoint needs a newer release of this service") from error

    def describe(self, *, sample_fps: float, segment_seconds: float) -> dict[str, Any]:
        """Return everything that produced a result, so that it can be explained and repeated."""
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
        ModelError: The manifest is missing or invalid.
    """
    try:
        return Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    except OSError as error:
        raise ModelError(f"checkpoint {folder.name!r} has no readable manifest") from error
    except ValidationError as error:
        name = folder.name
        for mistake in error.errors():
            # The checkpoint is probably from a newer release; its other errors would only hide that.
            if mistake["loc"] == ("architecture", "backbone") and mistake["type"] == "literal_error":
                known = ", ".join(get_args(Backbone))
                message = f"checkpoint {name!r} has the unknown backbone {mistake['input']!r}; known are {known}"
                raise ModelError(message) from error
        raise ModelError(f"the manifest of checkpoint {name!r} is invalid: {error}") from error


def find_manifest(models_dir: Path, name: str) -> Manifest:
    """Return the manifest of the checkpoint *name* below *models_dir*. Raises UnknownModelError."""
    known = list_manifests(models_dir)
    if name not in known:
        raise UnknownModelError(f"unknown model {name!r}; available: {', '.join(known) or 'none'}")
    return known[name]


def list_manifests(models_dir: Path) -> dict[str, Manifest]:
    """
    Return name → manifest of every checkpoint folder below *models_dir*, in order of name.

    Manifests that cannot be read are left out, so that they do not affect other checkpoints; ``check_manifests``
    reports them.
    """
    manifests, _ = _read_manifests(models_dir)
    return {manifest.name: manifest for manifest in manifests}


def check_manifests(models_dir: Path, default: str) -> list[str]:
    """
    Check every manifest below *models_dir* when a service starts.

    Returns:
        One sentence for each manifest that cannot be read. The service works without them.

    Raises:
        ModelError: The manifest of the checkpoint *default* cannot be read.
    """
    _, refused = _read_manifests(models_dir)
    if default in refused:
        raise refused[default]
    return [str(error) for error in refused.values()]


def _read_manifests(models_dir: Path) -> tuple[list[Manifest], dict[str, ModelError]]:
    """Return the manifests below a folder, and folder name → error of those that cannot be read."""
    manifests: list[Manifest] = []
    refused: dict[str, ModelError] = {}
    for file in sorted(models_dir.glob("*/manifest.json")):
        try:
            manifests.append(read_manifest(file.parent))
        except ModelError as error:
            refused[file.parent.name] = error
    return manifests, refused
