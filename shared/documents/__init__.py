"""
JSON documents of jobs, segments, deliveries and checkpoints, for the API, webhooks and local scans alike.

Each document is a pydantic model with a class method that builds it from rows. The OpenAPI document is generated from
the same models, so that it describes exactly what is sent. The SDK has its own dataclasses to read them.
"""

from shared.documents.checkpoints import installed_checkpoints

# The entry point ``deepfakestream.local`` in setup.cfg refers to this name.
__all__ = ["installed_checkpoints"]
