"""
Storage of uploads on a disk or in S3, behind one protocol.

``protocol`` defines the operations, ``files`` and ``s3`` implement them, and ``opening`` chooses the implementation.
``copies`` keeps local copies of objects in S3, ``client`` makes calls to S3, and ``folders`` makes private folders.
"""

from shared.errors import ObjectMissingError, StorageError
from shared.storage.files import FileStorage
from shared.storage.opening import open_storage
from shared.storage.protocol import (
    BLOCK_BYTES,
    EXPLANATION_PREFIX,
    INCOMING_PREFIX,
    LIVE_PREFIX,
    MEDIA_PREFIX,
    PROBE_PREFIX,
    UNFINISHED_SUFFIX,
    PresignedUpload,
    Storage,
    Upload,
)

__all__ = [
    "BLOCK_BYTES",
    "EXPLANATION_PREFIX",
    "INCOMING_PREFIX",
    "LIVE_PREFIX",
    "MEDIA_PREFIX",
    "PROBE_PREFIX",
    "UNFINISHED_SUFFIX",
    "FileStorage",
    "ObjectMissingError",
    "PresignedUpload",
    "Storage",
    "StorageError",
    "Upload",
    "open_storage",
]
