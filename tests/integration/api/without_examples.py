"""
Hooks for schemathesis that generate requests from schemas alone; those of ``long_urls`` apply as well.

Beside the examples of a body, phases other than that of examples would vary one field of them at a time: real streams
would be begun and waited for, and jobs made, beyond what the limits of one key and the time of a test allow.
"""

from typing import Any

import schemathesis

from tests.integration.api import long_urls

__all__ = ["long_urls"]


@schemathesis.hook
def before_load_schema(_context: Any, raw_schema: dict[str, Any]) -> None:
    """Remove the examples of requests and answers."""
    for operation in (operation for path in raw_schema["paths"].values() for operation in path.values()):
        for part in (operation.get("requestBody", {}), *operation["responses"].values()):
            for content in part.get("content", {}).values():
                content.pop("examples", None)
