"""
The examples in the OpenAPI document.

``examples.json`` is a record of a real run, which ``python -m tests.examples`` makes anew after a change of a request
or an answer. It has the examples by operation, part (``request`` or a status), media type and name.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

from flask_openapi3 import OpenAPI

from api.errors import MEDIA_TYPE

_FILE: Final = Path(__file__).with_name("examples.json")


class ExampledAPI(OpenAPI):
    """An application whose OpenAPI document has examples."""

    def generate_spec_json(self) -> None:
        """Generate the document; the library calls this when it is requested for the first time."""
        super().generate_spec_json()  # type: ignore[no-untyped-call] # the library's method has no annotations
        add_examples(self.spec_json, _read())


def add_examples(document: dict[str, Any], examples: dict[str, Any]) -> None:
    """
    Add *examples* to the operations of an OpenAPI document.

    Refusals with the same status refer to one example. Examples of operations that the document lacks are left out.
    """
    components = document["components"].setdefault("examples", {})
    for status, problem in examples["problems"].items():
        components[f"problem{status}"] = {"value": problem}
    for operation in (operation for path in document["paths"].values() for operation in path.values()):
        recorded = examples["operations"].get(operation["operationId"], {})
        _add(operation.get("requestBody", {}), recorded.get("request", {}))
        for status, response in operation["responses"].items():
            _add(response, recorded.get(status, {}))
            if status in examples["problems"] and MEDIA_TYPE in response.get("content", {}):
                reference = {"$ref": f"#/components/examples/problem{status}"}
                response["content"][MEDIA_TYPE]["examples"] = {"problem": reference}


def _add(part: dict[str, Any], recorded: dict[str, Any]) -> None:
    """Add the examples of each media type to a request body or a response."""
    for media_type, content in part.get("content", {}).items():
        if media_type in recorded:
            content["examples"] = {name: {"value": value} for name, value in recorded[media_type].items()}


@cache
def _read() -> dict[str, Any]:
    examples: dict[str, Any] = json.loads(_FILE.read_text())
    return examples
