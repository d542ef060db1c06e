"""Recipes: all settings of a training run, in one YAML file, which is validated before anything starts."""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from shared.manifests import Architecture, Preprocessing, Sampling
from worker.training.data.cache import CacheSettings
from worker.training.data.sources import Source
from worker.training.errors import DataError
from worker.training.fakes.augmentation import Augmentation
from worker.training.fakes.generators.autoencoders import AutoencoderSettings
from worker.training.fakes.generators.inpainters import InpainterSettings
from worker.training.fakes.generators.painting import PaintedKind, PainterSettings
from worker.training.fakes.generators.restorers import RestorerSettings
from worker.training.fakes.kinds import Kind


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StageRecipe(_Part):
    """One stage of training."""

    images: int = Field(gt=0)
    mixture: dict[Kind, Annotated[float, Field(ge=0.0)]]
    augmentation: Augmentation | None = None
    """Replaces the recipe's augmentation, so that a run may go from easy pictures to hard ones."""

    @field_validator("mixture")
    @classmethod
    def _holds_something(cls, mixture: dict[Kind, float]) -> dict[Kind, float]:
        if not any(mixture.values()):
            raise ValueError("a mixture needs a kind with a weight above 0")
        return mixture


class SamplingBalance(_Part):
    """
    Balance between data sets and people when real faces are drawn.

    The weight of a medium is the number of its faces, up to a dozen. The share of a data set, and of a person within
    it, is the sum of these weights to the given power: 1 draws all media equally often, 0 all data sets (or people)
    equally often, and 0.5 is between the two.
    """

    data_set: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    person: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0


class Optimisation(_Part):
    """AdamW with warm-up and cosine decay."""

    batch: int = Field(default=32, ge=2, multiple_of=2)
    """Images in a step on one device, half of them real."""
    learning_rate: float = Field(default=4e-4, gt=0.0)
    head_learning_rate: float = Field(default=1e-3, gt=0.0)
    """Learning rate of the head and the stem, which have no ImageNet weights."""
    weight_decay: float = Field(default=0.02, ge=0.0)
    warm_up_images: int = Field(default=2000, ge=0)
    clip: float = Field(default=5.0, gt=0.0)
    """Norm to which larger gradients are clipped."""
    loss: Literal["bce", "focal"] = "bce"
    focal_gamma: float = Field(default=2.0, ge=0.0)
    ranking: float = Field(default=0.3, ge=0.0)
    """Weight of the ranking loss, which is small if a fake scores above the real picture it was made from."""
    centring: float = Field(default=0.0, ge=0.0)
    """Weight of the centring loss, which is small if the logits of a pair are symmetric about 0, so that a whole clip
    is not shifted towards fake."""
    mask: float = Field(default=0.5, ge=0.0)
    """Weight of the mask loss, for predicting where a fake was changed; 0 leaves that part of the network out."""
    ema_decay: float = Field(default=0.999, ge=0.0, lt=1.0)
    batch_norm_momentum: float = Field(default=0.1, gt=0.0, le=1.0)
    freeze_batch_norm: bool = False
    """Keep the statistics of batch norms as they are in the start, for training on with small batches."""


class Distillation(_Part):
    """
    Training towards the logits that a finished checkpoint, the teacher, gives the same faces without augmentation.

    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015. Where the augmentation compresses a
    face, the network learns to see what the teacher sees in the clean one; where it does not, the network stays close
    to the teacher.
    """

    teacher: str
    """Folder of a checkpoint with the same preprocessing."""
    temperature: float = Field(default=2.0, gt=0.0)
    """Divisor of both logits before they become probabilities; with a high one, small differences count more."""
    weight: float = Field(default=1.0, gt=0.0)
    """Weight of the divergence between the probabilities of both."""
    labels: float = Field(default=1.0, ge=0.0)
    """Weight of the losses that follow from labels and masks."""


class Validation(_Part):
    """When to validate, on what, and when to stop."""

    every_images: int = Field(default=10_000, gt=0)
    blended_couples: int = Field(default=150, gt=0)
    """Number of fakes that are made from validation faces."""
    media: int | None = Field(default=None, ge=1)
    """Largest number of media of each data set and label; all if not given."""
    faces: int | None = Field(default=None, ge=1)
    """Largest number of faces of each medium, spread evenly over it; all if not given."""
    views: list[Literal["clean", "crf28", "crf35", "half"]] = Field(default=["clean"], min_length=1)
    """Views of each face (``transcoding.VIEWS``); states are chosen by the mean over them."""
    patience: int = Field(default=0, ge=0)
    """Stop after this many validations without improvement; 0 never stops."""


Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
"""Precisions of Lightning Fabric."""


class Hardware(_Part):
    """Hardware to train on, in the terms of Lightning Fabric."""

    accelerator: str = "auto"
    devices: int = Field(default=1, ge=1)
    precision: Literal["auto"] | Precision = "auto"
    """
    ``auto`` is ``32-true`` on processors and GPUs that only emulate bfloat16, and ``bf16-mixed`` on everything else.
    GPUs before Ampere may be faster with ``16-mixed``.
    """
    threads: int | None = Field(default=None, ge=1)
    """Threads of a process on CPU; if not given, one for each core that it may use."""
    loader_processes: int = Field(default=1, ge=0)


class ExternalTraining(_Part):
    """Description of training that was done elsewhere, for the model card; nothing else depends on it."""

    data: str = ""
    """Training data that is not among the recipe's sources, and its terms of use."""
    images: str = ""
    """Number of images that were trained on."""
    hardware: str = ""
    seconds: str = ""
    """Duration of training."""
    measured: list[str] = []
    """Results that the authors of the weights measured on other media, a line each, for the card's section on
    weaknesses."""
    note: str = ""


_PAINTERS_OF: Final[dict[PaintedKind, str]] = {
    "painted": "autoencoders with a plain code",
    "decoded": "autoencoders with a variational or quantised code",
    "restored": "restorers",
    "inpainted": "inpainters",
}


class Recipe(_Part):
    """A whole training run."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    version: str
    licence: str = "Apache-2.0"
    """Licence of the weights, for the manifest."""
    seed: int = 1
    sources: list[Source] = Field(min_length=1)
    cache: CacheSettings = CacheSettings()
    architecture: Architecture
    preprocessing: Preprocessing
    sampling: Sampling
    start: str = "imagenet"
    """``imagenet``, ``random``, or the folder of a checkpoint."""
    stages: list[StageRecipe] = Field(min_length=1)
    autoencoders: list[AutoencoderSettings] = []
    """Networks that paint the faces of the kinds ``painted``, with a plain code, and ``decoded``, with another."""
    restorers: list[RestorerSettings] = []
    """Networks that paint the faces of the kind ``restored``."""
    inpainters: list[InpainterSettings] = []
    """Networks that paint the faces of the kind ``inpainted``."""
    real_from: list[str] = []
    """Data sets from whose real faces fakes are made; all if empty."""
    draws: SamplingBalance = SamplingBalance()
    augmentation: Augmentation = Augmentation()
    augment_on: Literal["loaders", "device"] = "loaders"
    """Where crops are augmented: with ``device``, the changes that ``on_device`` can apply to whole batches move from
    the loaders to the device, at the network's size instead of the crop's native size."""
    optimisation: Optimisation = Optimisation()
    distillation: Distillation | None = None
    validation: Validation = Validation()
    hardware: Hardware = Hardware()
    min_bits_per_pixel: float | None = Field(default=None, gt=0.0)
    """Limit for the manifest: a video with fewer (``shared.evidence.bits_per_pixel``) is never called real."""
    save_every_s: float = Field(default=60.0, ge=0.0)
    origin: ExternalTraining | None = None

    @model_validator(mode="after")
    def _can_paint(self) -> Self:
        missing = self.painted_kinds - {painter.kind for painter in self._all_painters}
        if missing:
            lists = ", ".join(f"{kind!r} needs {_PAINTERS_OF[kind]}" for kind in sorted(missing))
            raise ValueError(f"a mixture needs faces that no network paints: {lists}")
        return self

    @property
    def painted_kinds(self) -> set[PaintedKind]:
        """The kinds of painted faces in the mixtures."""
        return {
            kind for kind in get_args(PaintedKind) if any(stage.mixture.get(kind, 0.0) > 0.0 for stage in self.stages)
        }

    @property
    def painters(self) -> list[PainterSettings]:
        """The networks whose faces are in the mixtures."""
        return [painter for painter in self._all_painters if painter.kind in self.painted_kinds]

    @property
    def _all_painters(self) -> list[PainterSettings]:
        return [*self.autoencoders, *self.restorers, *self.inpainters]

    @property
    def images(self) -> int:
        """Images of all stages."""
        return sum(stage.images for stage in self.stages)

    @classmethod
    def read(cls, path: Path) -> Self:
        """
        Read the recipe at *path*.

        Raises:
            DataError: It cannot be read, or does not validate; the message lists every mistake.
        """
        try:
            return cls.model_validate(yaml.safe_load(path.read_bytes()))
        except (OSError, yaml.YAMLError) as error:
            raise DataError(f"{path} cannot be read: {error}") from error
        except ValidationError as error:
            raise DataError(f"{path}: {error}") from error

    def digest(self) -> str:
        """Hash the settings that decide the weights, without the hardware and descriptions."""
        left_out: dict[str, Any] = {
            "hardware": True,
            "save_every_s": True,
            "validation": True,
            "licence": True,
            "origin": True,
            "min_bits_per_pixel": True,
            "sources": {"__all__": {"about", "terms", "seen"}},
        }
        # Digests of recipes without these settings must stay those of runs that began before they existed.
        added = ("restorers", "inpainters", "distillation")
        left_out |= {name: True for name in added if not getattr(self, name)}
        if not self.optimisation.freeze_batch_norm:
            left_out["optimisation"] = {"freeze_batch_norm"}
        data = self.model_dump_json(exclude=left_out)
        return hashlib.sha256(data.encode()).hexdigest()
