"""
References of checkpoints: what the validation set is like, and how the checkpoint judges it.

A reference is a file beside the manifest, which no result depends on. A checkpoint works without one; its inputs are
then compared with nothing.
"""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import ModelError
from shared.inputs import BINS_VERSION, INPUT_BINS, Property
from shared.manifests import Manifest

REFERENCE_FILE: Final = "reference.json"
"""Name of the file, in the folder of the manifest."""

Count = Annotated[float, Field(ge=0.0)]
BinCounts = Annotated[tuple[Count, ...], Field(min_length=INPUT_BINS, max_length=INPUT_BINS)]


class _Frozen(BaseModel):
    # A later release may say more.
    model_config = ConfigDict(frozen=True, extra="ignore")


class KindReference(_Frozen):
    """The faces of one kind of media in the validation set."""

    media: int = Field(ge=0)
    faces: int = Field(ge=0)
    size_px: BinCounts
    sharpness: BinCounts
    luma: BinCounts

    def counts(self, each: Property) -> tuple[float, ...]:
        """Return the faces in each bin of a property."""
        found: tuple[float, ...] = getattr(self, each)
        return found


class JudgedReference(_Frozen):
    """The verdicts on the media of one label in the validation set."""

    media: int = Field(ge=0)
    """Media with a score."""
    scores_in_band: int = Field(ge=0)
    """How many of their scores are between the limits of ``real`` and ``fake``."""
    verdicts: dict[str, int]


class Reference(_Frozen):
    """What the validation set of a checkpoint is like, and how the checkpoint judges it."""

    weights_sha256: str
    """Digest of the weights that judged it."""
    bins: int
    """Version of the bins."""
    kinds: dict[Literal["image", "video"], KindReference]
    judged: dict[Literal["real", "fake"], JudgedReference]


def read_reference(models_dir: Path, manifest: Manifest) -> Reference:
    """
    Read the reference of a checkpoint below *models_dir*.

    Raises:
        ModelError: There is none, or it is invalid or of other weights or bins. The message is for people.
    """
    name = manifest.name
    try:
        found = Reference.model_validate_json((models_dir / name / REFERENCE_FILE).read_bytes())
    except FileNotFoundError as error:
        raise ModelError(f"checkpoint {name!r} has no reference") from error
    except (OSError, ValidationError) as error:
        raise ModelError(f"the reference of checkpoint {name!r} cannot be read") from error
    if found.weights_sha256 != manifest.weights.sha256:
        raise ModelError(f"the reference of checkpoint {name!r} was made with other weights")
    if found.bins != BINS_VERSION:
        raise ModelError(f"the reference of checkpoint {name!r} has the bins of another release")
    return found
