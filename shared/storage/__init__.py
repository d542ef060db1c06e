"""
Where uploads are kept: on a disk or in S3, behind one protocol.

``protocol`` says what storage offers, ``files`` and ``s3`` offer it, and ``opening`` chooses between them. ``copies``
keeps local copies of objects in S3, ``client`` makes the calls to S3, and ``folders`` makes private folders.
"""

from shared.errors import ObjectMissingError, StorageError
from shared.storage.files import FileStorage
from shared.storage.opening import open_storage
from shared.storage.protocol import (
    BLOCK_BYTES,
    INCOMING_PREFIX,
    MEDIA_PREFIX,
    PROBE_PREFIX,
    PresignedUpload,
    Storage,
    Upload,
)

__all__ = [
    "BLOCK_BYTES",
    "INCOMING_PREFIX",
    "MEDIA_PREFIX",
    "PROBE_PREFIX",
    "FileStorage",
    "ObjectMissingError",
    "PresignedUpload",
    "Storage",
    "StorageError",
    "Upload",
    "open_storage",
]
