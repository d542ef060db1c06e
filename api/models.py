"""Checkpoints that can be asked for."""

from pathlib import Path
from typing import Any

from flask import Response, jsonify
from flask_openapi3 import APIBlueprint, Tag

from api.auth import requires
from api.documentation import SECURITY, guarded
from api.schemas import CheckpointList
from api.services import services
from shared.manifests import Manifest, list_manifests

blueprint = APIBlueprint("models", __name__, url_prefix="/v1", abp_tags=[Tag(name="models")], abp_security=SECURITY)


@blueprint.get("/models", operation_id="listModels", responses={200: CheckpointList, **guarded(422)})
@requires("jobs:read")
def get_models() -> Response:
    """List the checkpoints with their model cards."""
    models = services().settings.models
    items = [
        _document(manifest, models.dir, is_default=manifest.name == models.default)
        for manifest in list_manifests(models.dir).values()
    ]
    return jsonify({"items": items})


def _document(manifest: Manifest, models_dir: Path, *, is_default: bool) -> dict[str, Any]:
    card = models_dir / manifest.name / "MODEL_CARD.md"
    return {
        "name": manifest.name,
        "version": manifest.version,
        "trained": manifest.trained,
        "is_default": is_default,
        "threshold": manifest.calibration.threshold,
        "uncertainty_band": list(manifest.calibration.uncertainty_band),
        **manifest.calibration.model_dump(mode="json", include={"bounds", "min_bits_per_pixel"}),
        "sampling": manifest.sampling.model_dump(),
        "weights_sha256": manifest.weights.sha256,
        "training_data": manifest.training_data,
        "metrics": manifest.metrics,
        "licence": manifest.licence,
        "model_card": card.read_text() if card.exists() else "",
    }
