"""Responses that contain documents."""

from http import HTTPStatus

from flask import Response

from shared.documents.base import Document


def document_response(document: Document, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """Return *document* as a JSON response."""
    return Response(document.to_text(), status=status, mimetype="application/json")
