"""What all documents have in common."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema, to_jsonable_python

from shared.errors import Code

Score = Annotated[float, Field(ge=0.0, le=1.0)]


class Document(BaseModel):
    """A JSON document that a service sends."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    def to_text(self) -> str:
        """
        Return the document as JSON.

        Metadata that an earlier release accepted may have more levels than the 255 that pydantic writes. Such a
        document is written by the standard library, which writes as many levels as it reads from a row.
        """
        try:
            return self.model_dump_json()
        except ValueError:
            return json.dumps(_plain(self), ensure_ascii=False, separators=(",", ":"))

    def to_json(self) -> dict[str, Any]:
        """Return the document as plain values of JSON, of as many levels as ``to_text`` writes."""
        try:
            return self.model_dump(mode="json")
        except ValueError:
            plain: dict[str, Any] = _plain(self)
            return plain


def _plain(value: Any) -> Any:
    """Return *value* as values of JSON, with what is stored as JSON untouched: it is plain, and may be deep."""
    if isinstance(value, Document):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, list):
        return [_plain(item) if isinstance(item, Document) else item for item in value]
    return value if isinstance(value, dict) else to_jsonable_python(value, inf_nan_mode="null")


@dataclass(frozen=True, slots=True)
class DeclaredType:
    """
    Says in the schema what a value holds, and sends the value as it is stored.

    Rows outlive releases: what an earlier one stored has fewer fields than *shape*, and while processes are exchanged
    a later one may store words and fields that this one does not know. Sums of floating-point numbers and people who
    change rows leave values outside of a range. All of it goes to clients untouched, and is never an error of the
    server.
    """

    declared: Any
    """A type that pydantic can describe: a model, a list of models, an enumeration."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Take every value."""
        del source, handler
        return core_schema.any_schema()

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe the shape."""
        del schema
        return handler(TypeAdapter(self.declared).core_schema)


class ErrorDocument(Document):
    """Why a job or segment failed."""

    code: Annotated[str, DeclaredType(Code)]
    detail: str

    @classmethod
    def from_columns(cls, code: str | None, detail: str | None) -> "ErrorDocument | None":
        """The error of a row; None where it has none."""
        return None if code is None else cls(code=code, detail=detail or "")
