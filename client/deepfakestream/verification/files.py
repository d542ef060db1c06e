"""The files of a bundle, as ``docs/evidence.md`` describes them: their names, and how many there can be."""

from typing import Final

JOB: Final = "job.json"
CHECKPOINT: Final = "checkpoint.json"
SEGMENTS: Final = "segments.jsonl"
AUDIT: Final = "audit.jsonl"
EXPLANATION: Final = "explanation.json"
IMAGES: Final = "explanation/"
"""Folder of the images that the explanation names."""
ENVIRONMENT: Final = "environment.json"
KEY: Final = "key.pem"
SUMS: Final = "SHA256SUMS"
ATTESTATION: Final = "attestation.intoto.jsonl"
TIMESTAMP: Final = "timestamp.tsr"
MEDIA: Final = "media"
"""Name of the media among the subjects of the statement."""
REQUIRED: Final = frozenset({"README.txt", JOB, CHECKPOINT, SEGMENTS, AUDIT, ENVIRONMENT, KEY, SUMS})
"""Files that every bundle has, and whose digests are signed."""
MAX_IMAGES: Final = 90
"""Ten people with a crop, a map, an overlay and six thumbnails each."""
MAX_ENTRIES: Final = len(REQUIRED) + len((ATTESTATION, TIMESTAMP, EXPLANATION)) + MAX_IMAGES
MAX_SEGMENTS: Final = 1_000_000
"""Segments last a second at least; this is more than eleven days."""
