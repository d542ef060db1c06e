"""Responses that contain documents."""

from http import HTTPStatus

from flask import Response

from shared.documents.base import Document


def document_response(document: Document, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """Return *document* as a JSON response."""
    return Response(document.to_text(), status=status, mimetype="application/json")


def accepted_response(
    document: Document, location: str, *, is_new: bool = True, status: HTTPStatus = HTTPStatus.ACCEPTED
) -> Response:
    """
    Return *document* as the answer to a request that is worked on from now on.

    Args:
        location: Where its state is.
        is_new: False if an earlier request with the same idempotency key was answered with it.
        status: Another status for work that has ended already.
    """
    response = document_response(document, status)
    response.headers["Location"] = location
    if not is_new:
        response.headers["Idempotent-Replayed"] = "true"
    return response
