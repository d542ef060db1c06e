"""What all documents have in common."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from shared.errors import Code

Score = Annotated[float, Field(ge=0.0, le=1.0)]


class Document(BaseModel):
    """A JSON document that a service sends."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    def to_json(self) -> dict[str, Any]:
        """Return the document as plain values of JSON."""
        return self.model_dump(mode="json")


@dataclass(frozen=True, slots=True)
class Shape:
    """
    Says in the schema what a value holds, and sends the value as it is stored.

    Rows outlive releases: what an earlier one stored has fewer fields than *shape*, and while processes are exchanged
    a later one may store words and fields that this one does not know. Both go to clients untouched, and are never an
    error of the server. It also costs nothing to check them.
    """

    shape: Any
    """A type that pydantic can describe: a model, a list of models, an enumeration."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Take every value."""
        del source, handler
        return core_schema.any_schema()

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe the shape."""
        del schema
        return handler(TypeAdapter(self.shape).core_schema)


class ErrorDocument(Document):
    """Why a job or segment failed."""

    code: Annotated[str, Shape(Code)]
    detail: str

    @classmethod
    def of(cls, code: str | None, detail: str | None) -> "ErrorDocument | None":
        """The error of a row; None where it has none."""
        return None if code is None else cls(code=code, detail=detail or "")
