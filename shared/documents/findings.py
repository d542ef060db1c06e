"""What is said of a job's result: its evidence, its people, and the model behind it. All of it is sent as stored."""

from typing import Any, Literal

from pydantic import Field

from shared.documents.base import Document, Score
from shared.states import Verdict


class ModelDescription(Document):
    """Everything that produced the result."""

    name: str
    version: str
    trained: bool
    weights_sha256: str
    threshold: Score
    uncertainty_band: list[float]
    temperature: float
    offset: float = Field(default=0.0, description="Taken from a logit before it is divided by the temperature.")
    bounds: dict[str, Any] | None = Field(
        default=None, description="How threshold and band move with the evidence, by kind of media, as log-odds."
    )
    min_bits_per_pixel: float | None = Field(
        default=None, description="A video with fewer is compressed too heavily to be called real."
    )
    architecture: dict[str, Any]
    preprocessing: dict[str, Any]
    pipeline: int | None = Field(
        default=None, description="Counts changes to decoding, detection and averaging; null in results from before."
    )
    sampling: dict[str, float]


class EvidenceDocument(Document):
    """What a verdict rests on. The more faces of one person were seen, the closer its limits lie together."""

    kind: Literal["image", "video"]
    faces: int = Field(description="Scored faces of the people who decided: of each segment's highest.")
    people: float = Field(
        description="With a scored face in a segment, of whom the highest decides: the geometric mean over segments."
    )
    bits_per_pixel: float | None = Field(
        description="Of a video, scaled to H.264 and a frame of 100,000 pixels; null for images."
    )
    real_below: Score | None = Field(
        description="Only below this the job's score can be called real, where no reason speaks against it."
    )
    fake_from: Score | None = Field(description="From this on it is called fake. Both are null without a score.")


class Span(Document):
    """A stretch of time, in seconds of the media; of an image from page to page, counted from 0."""

    start_s: float
    end_s: float


class ShownFace(Document):
    """The face to show for a person: the largest that was scored."""

    time_s: float
    box_px: list[float] = Field(description="Left, top, right, bottom in the displayed frame.")


class PersonVerdictDocument(Document):
    """One person over the whole media. Whom a cut shows from another side may be counted again."""

    person: int = Field(description="0 for the one with the most face area; segments use the same numbers.")
    fake_score: Score | None = Field(description="Mean over the scored faces; null if none could be scored.")
    verdict: Literal[Verdict.FAKE, Verdict.REAL, Verdict.INCONCLUSIVE] | None = Field(
        description="The worse of what the mean and the most suspicious stretch of time give; null without a score."
    )
    real_below: Score | None = Field(description="Limits of the mean, which move with faces and people.")
    fake_from: Score | None
    faces: int
    faces_scored: int
    seen: list[Span]
    face: ShownFace


class SuspicionDocument(Span):
    """A stretch of time in which one person's faces are suspicious together, however short it is."""

    person: int
    fake_score: Score = Field(description="Mean over the faces in it.")
    faces: int
    verdict: Literal[Verdict.FAKE, Verdict.INCONCLUSIVE] = Field(
        description="`fake` where it stands out among all chances, `inconclusive` where it does among some."
    )
