"""Schemas of a job's findings: evidence, people and model. Their values are sent as stored."""

from typing import Any, Literal

from pydantic import Field

from shared.documents.base import Document, Score
from shared.states import Verdict


class ModelDescription(Document):
    """The checkpoint and the settings that produced a result."""

    name: str
    version: str
    trained: bool
    weights_sha256: str
    threshold: Score
    uncertainty_band: list[float]
    temperature: float
    offset: float = Field(default=0.0, description="Subtracted from a logit before it is divided by the temperature.")
    bounds: dict[str, Any] | None = Field(
        default=None, description="How threshold and band move with the evidence, by kind of media, as log-odds."
    )
    min_bits_per_pixel: float | None = Field(
        default=None, description="A video with fewer bits per pixel is compressed too heavily to be called real."
    )
    architecture: dict[str, Any]
    preprocessing: dict[str, Any]
    pipeline: int | None = Field(
        default=None, description="Version of decoding, detection and averaging; null in results of older releases."
    )
    sampling: dict[str, float]


class EvidenceDocument(Document):
    """The evidence for a verdict. The more faces of one person were scored, the closer its limits are."""

    kind: Literal["image", "video"]
    faces: int = Field(
        description="Scored faces of the people who decided, that is of the highest-scoring person of each segment."
    )
    people: float = Field(description="People with a scored face in a segment: the geometric mean over segments.")
    bits_per_pixel: float | None = Field(
        description="Bits per pixel of a video, scaled to H.264 and a frame of 100,000 pixels; null for images."
    )
    real_below: Score | None = Field(
        description="The job's score can be called real only below this, unless a reason prevents it."
    )
    fake_from: Score | None = Field(
        description="From this on the score is called fake. Both limits are null without a score."
    )


class Span(Document):
    """An interval of time, in seconds of the media; for an image, in pages counted from 0."""

    start_s: float
    end_s: float


class ShownFace(Document):
    """The face to show for a person: the largest scored one."""

    time_s: float
    box_px: list[float] = Field(description="Left, top, right, bottom in the displayed frame.")


class PersonVerdictDocument(Document):
    """One person over the whole media. After a cut to another angle the same person may be counted again."""

    person: int = Field(
        description="Number of the person, 0 for the one with the most face area; segments use the same numbers."
    )
    fake_score: Score | None = Field(description="Mean over the scored faces; null if none could be scored.")
    verdict: Literal[Verdict.FAKE, Verdict.REAL, Verdict.INCONCLUSIVE] | None = Field(
        description="The worse of two verdicts, by the mean and by the most suspicious interval; null without a score."
    )
    real_below: Score | None = Field(
        description="Lower limit of the mean; it moves with the numbers of faces and people."
    )
    fake_from: Score | None
    faces: int
    faces_scored: int
    seen: list[Span]
    face: ShownFace


class SuspicionDocument(Span):
    """An interval of time, of any length, in which one person's faces are suspicious together."""

    person: int
    fake_score: Score = Field(description="Mean over the faces in the interval.")
    faces: int
    verdict: Literal[Verdict.FAKE, Verdict.INCONCLUSIVE] = Field(
        description="`fake` if significant with all intervals counted, `inconclusive` if only with an eighth of them."
    )
