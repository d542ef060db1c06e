"""Keys of streams that are published to the service."""

import hashlib
import secrets
from typing import Final

PUSH_APPLICATION: Final = "live"
"""What publishers connect to: the path of the address before the key."""
PREFIX: Final = "dfs_live_"
"""The beginning of every key, by which people and scanners for secrets recognise one."""
RANDOM_BYTES: Final = 32
"""So many that the digest needs no salt."""


def new_push_key() -> str:
    """Return a new key: 52 characters that need no quotes in an address or a shell."""
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def digest_key(key: str) -> bytes:
    """Return what is stored of *key*."""
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()
