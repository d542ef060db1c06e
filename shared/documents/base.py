"""The base class and common parts of all documents."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema, to_jsonable_python

from shared.errors import Code

Score = Annotated[float, Field(ge=0.0, le=1.0)]
POLL_AFTER_S: Final = 2.0
"""When a client that polls should ask again for the state of something that has not ended, in seconds."""
EVENTS_SENT: Final = "The events that are sent to `webhook_url`. Null for all."


class Document(BaseModel):
    """A JSON document that the service sends."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    def to_text(self) -> str:
        """
        Return the document as JSON.

        Metadata that an earlier release accepted may be nested deeper than the 255 levels that pydantic writes. Such a
        document is written by the standard library, which writes as many levels as it reads.
        """
        try:
            return self.model_dump_json()
        except ValueError:
            return json.dumps(_plain(self), ensure_ascii=False, separators=(",", ":"))

    def to_json(self) -> dict[str, Any]:
        """Return the document as plain JSON values, nested as deeply as ``to_text`` allows."""
        try:
            return self.model_dump(mode="json")
        except ValueError:
            plain: dict[str, Any] = _plain(self)
            return plain


def _plain(value: Any) -> Any:
    """Return *value* as plain JSON values. Values stored as JSON are plain already, may be deep, and are kept as is."""
    if isinstance(value, Document):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, list):
        return [_plain(item) if isinstance(item, Document) else item for item in value]
    return value if isinstance(value, dict) else to_jsonable_python(value, inf_nan_mode="null")


@dataclass(frozen=True, slots=True)
class DeclaredType:
    """
    An annotation that declares the type of a field in the schema only; its value is sent as stored, without validation.

    Rows outlive releases: an earlier release stored fewer fields, and during a rolling upgrade a later one may store
    values and fields that this release does not know. Rounding errors and manual changes of rows can leave values out
    of range. Such values are sent to clients unchanged and never cause a server error.
    """

    declared: Any
    """The type that the schema shows: a model, a list of models, an enumeration."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Accept every value."""
        del source, handler
        return core_schema.any_schema()

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the schema of the declared type."""
        del schema
        if isinstance(self.declared, type) and issubclass(self.declared, BaseModel):
            # pydantic refers to the model only from within another schema.
            return {"allOf": [handler(core_schema.list_schema(TypeAdapter(self.declared).core_schema))["items"]]}
        return handler(TypeAdapter(self.declared).core_schema)


class ErrorDocument(Document):
    """The reason why a job or segment failed."""

    code: Annotated[str, DeclaredType(Code)]
    detail: str

    @classmethod
    def from_columns(cls, code: str | None, detail: str | None) -> "ErrorDocument | None":
        """Return the error of a row; None if it has none."""
        return None if code is None else cls(code=code, detail=detail or "")
