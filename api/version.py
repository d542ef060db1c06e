"""The release that this code is, as the OpenAPI document and evidence bundles name it."""

from typing import Final

VERSION: Final = "0.1.0"
