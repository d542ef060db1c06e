"""Documents of checkpoints, with their model cards."""

from pathlib import Path
from typing import Any

from pydantic import Field

from shared.documents.base import Document, Score
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR, Manifest, list_manifests


class CheckpointDocument(Document):
    """A checkpoint that jobs can use."""

    name: str
    version: str
    trained: bool
    is_default: bool
    threshold: Score
    uncertainty_band: list[float]
    bounds: dict[str, Any] | None = Field(
        description="How threshold and band, given for one face, move with the evidence: by kind, as log-odds."
    )
    min_bits_per_pixel: float | None = Field(description="A video with fewer bits per pixel is never called real.")
    sampling: dict[str, float]
    weights_sha256: str
    training_data: list[str]
    metrics: dict[str, float]
    licence: str
    model_card: str = Field(description="Markdown.")

    @classmethod
    def from_manifest(cls, manifest: Manifest, models_dir: Path, *, is_default: bool) -> "CheckpointDocument":
        """Build the document of a checkpoint from its *manifest* and its model card below *models_dir*."""
        card = models_dir / manifest.name / "MODEL_CARD.md"
        return cls(
            name=manifest.name,
            version=manifest.version,
            trained=manifest.trained,
            is_default=is_default,
            threshold=manifest.calibration.threshold,
            uncertainty_band=list(manifest.calibration.uncertainty_band),
            **manifest.calibration.model_dump(mode="json", include={"bounds", "min_bits_per_pixel"}),
            sampling=manifest.sampling.model_dump(),
            weights_sha256=manifest.weights.sha256,
            training_data=manifest.training_data,
            metrics=manifest.metrics,
            licence=manifest.licence,
            model_card=card.read_text() if card.exists() else "",
        )


class CheckpointList(Document):
    """All checkpoints."""

    items: list[CheckpointDocument]


def installed_checkpoints() -> list[dict[str, Any]]:
    """Return the checkpoints that come with the project, for the command line without a service."""
    return [
        CheckpointDocument.from_manifest(
            manifest, PACKAGED_MODELS_DIR, is_default=manifest.name == DEFAULT_CHECKPOINT
        ).to_json()
        for manifest in list_manifests(PACKAGED_MODELS_DIR).values()
    ]
