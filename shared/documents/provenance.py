"""
The document of a media's Content Credentials (C2PA).

The worker builds it from what a child process has read in the file, and refuses anything beyond these bounds: every
text was written by the file's author.
"""

from typing import Annotated

from pydantic import Field

from shared.documents.base import Document
from shared.states import ProvenanceReason, ProvenanceState

MAX_TEXT = 200
"""Characters of the longest text."""
MAX_CODES = 20
MAX_ACTIONS = 20
MAX_INGREDIENTS = 10

Text = Annotated[str, Field(max_length=MAX_TEXT)]


class ActionDocument(Document):
    """One action that a manifest records, as its signer describes it."""

    action: Text = Field(description="By the C2PA's names, such as `c2pa.created`.")
    source_type: Text | None = Field(
        default=None,
        description="Last part of the IPTC's digital source type, such as `trainedAlgorithmicMedia`, which says that a"
        " generative model made the media.",
    )
    software: Text | None = None
    of_ingredient: bool = Field(
        default=False, description="Whether the manifest of something that the media was made of records it."
    )


class ProvenanceDocument(Document):
    """
    The Content Credentials (C2PA) in the file, which are never part of the score.

    Every text but `state` and `reason` was written by the file's author. Only where `state` is `valid` does a trusted
    authority vouch for the signer's name.
    """

    state: ProvenanceState
    reason: ProvenanceReason | None = Field(
        default=None, description="Why the file was not checked, or could not be read; null in every other state."
    )
    codes: list[Text] = Field(
        default=[], max_length=MAX_CODES, description="The C2PA's codes of what failed in the validation."
    )
    signer: Text | None = Field(default=None, description="Common name in the signing certificate.")
    issuer: Text | None = Field(
        default=None, description="Organisation in the signing certificate: who issued the credentials."
    )
    signed_at: Text | None = Field(
        default=None,
        description="When the manifest was signed, by its time stamp; null without one. Only where `time_stamped` is"
        " true does a trusted authority vouch for it.",
    )
    time_stamped: bool = Field(
        default=False, description="Whether the manifest has a valid time stamp of an authority that is trusted."
    )
    generator: Text | None = Field(default=None, description="The program that wrote the manifest.")
    title: Text | None = None
    ai_generated: bool = Field(
        default=False, description="Whether an action names a source type that a generative model has a part in."
    )
    actions: list[ActionDocument] = Field(default=[], max_length=MAX_ACTIONS)
    actions_total: int = Field(default=0, ge=0)
    ingredients: list[Text] = Field(
        default=[], max_length=MAX_INGREDIENTS, description="Titles of what the media was made of."
    )
    ingredients_total: int = Field(default=0, ge=0)
    manifests: int = Field(default=0, ge=0, description="Number of manifests in the file, with those of ingredients.")
