"""
Jobs, segments, deliveries and checkpoints as JSON documents: one form for the API, webhooks and local scans.

Each document is a pydantic model that is built from rows by its ``of``. The same model is what the OpenAPI document
shows, so that what is promised and what is sent are one thing. The SDK reads the documents by dataclasses of its own.
"""

from shared.documents.checkpoints import installed_checkpoints

# Under this name the command line finds it (``deepfakestream.local`` in setup.cfg).
__all__ = ["installed_checkpoints"]
