"""Endpoint to list checkpoints."""

from flask import Response
from flask_openapi3 import APIBlueprint, Tag

from api.auth import requires
from api.documentation import SECURITY, authenticated_problems
from api.responses import document_response
from api.services import current_services
from shared.documents.checkpoints import CheckpointDocument, CheckpointList
from shared.manifests import list_manifests

blueprint = APIBlueprint("models", __name__, url_prefix="/v1", abp_tags=[Tag(name="models")], abp_security=SECURITY)


@blueprint.get("/models", operation_id="listModels", responses={200: CheckpointList, **authenticated_problems(422)})
@requires("jobs:read")
def get_models() -> Response:
    """List the checkpoints with their model cards."""
    models = current_services().settings.models
    items = [
        CheckpointDocument.from_manifest(manifest, models.dir, is_default=manifest.name == models.default)
        for manifest in list_manifests(models.dir).values()
    ]
    return document_response(CheckpointList(items=items))
