"""What the report says in words about Content Credentials."""

import re
from collections.abc import Mapping
from typing import Any, Final

from api.web.quoting import quote
from api.web.wording import make_printable
from shared.states import ProvenanceReason, ProvenanceState

STATES: Final = {
    ProvenanceState.NONE: (
        "No Content Credentials found. Most media have none, so this says nothing about whether it is genuine."
    ),
    ProvenanceState.VALID: (
        "The file has Content Credentials from a trusted signer, and was not changed since they were signed. What they "
        "say is the signer's word; it does not prove that what the media shows took place."
    ),
    ProvenanceState.UNTRUSTED: (
        "The file has Content Credentials and was not changed since they were signed, but this service does not know "
        "the signer: anybody can make such a signature, under any name."
    ),
    ProvenanceState.INVALID: (
        "The file has Content Credentials that are not valid: it was changed after they were signed, or they were not "
        "signed as they must be. Do not rely on what they say."
    ),
    ProvenanceState.UNREADABLE: "Whether the file has Content Credentials is not known: reading them failed.",
    ProvenanceState.NOT_CHECKED: "The file was not checked for Content Credentials.",
}
"""State → what it means, in a sentence or two."""
REASONS: Final = {
    ProvenanceReason.FORMAT: "They cannot be read in this format.",
    ProvenanceReason.LIBRARY: "The part of the service that reads them is not installed.",
    ProvenanceReason.TRUST_ANCHORS: "The service's list of trusted signers cannot be read.",
    ProvenanceReason.REMOTE: "The file only names an address where they are, and the service does not fetch them.",
    ProvenanceReason.DAMAGED: "The file, or that part of it, is damaged.",
    ProvenanceReason.CRASHED: "Reading them failed.",
    ProvenanceReason.TIMED_OUT: "Reading them took too long.",
}
WITH_CLAIMS: Final = (ProvenanceState.VALID, ProvenanceState.UNTRUSTED, ProvenanceState.INVALID)
SOURCES: Final = {
    "trainedAlgorithmicMedia": "made by a generative model",
    "compositeWithTrainedAlgorithmicMedia": "made in part by a generative model",
    "trainedAlgorithmicData": "data made by a generative model",
    "digitalCapture": "taken by a camera",
    "computationalCapture": "taken by a camera, and computed from several pictures",
    "screenCapture": "taken from a screen",
    "algorithmicMedia": "made by a program that is no trained model",
    "digitalCreation": "made by a person with a program",
    "humanEdits": "edited by a person",
    "composite": "put together from several sources",
}
"""Last part of the IPTC's digital source type → its meaning."""
NAME_OF_ACTION: Final = re.compile(r"[a-z]{1,20}( [a-z]{1,20}){0,2}")
CODE: Final = re.compile(r"[A-Za-z0-9_-]{1,40}(\.[A-Za-z0-9_-]{1,40}){1,4}")
CLOSING: Final = "They are no part of the score."


def explain_provenance(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """
    Return what ``_provenance.html`` and the PDF show.

    Args:
        found: The field ``provenance`` of the job's document; None if an earlier release inspected the media.
    """
    if found is None:
        return None
    state, reason = str(found.get("state")), found.get("reason")
    sentences = [next((text for known, text in STATES.items() if known == state), make_printable(state))]
    sentences += [text for known, text in REASONS.items() if known == reason]
    claims: list[tuple[str, str]] = []
    if state in WITH_CLAIMS:
        if found.get("ai_generated"):
            sentences.append("They say that a generative model made this media or a part of it.")
        signer = [quote(found[name]) for name in ("signer", "issuer") if found.get(name)]
        if signer:
            claims.append(("Signer", ", ".join(signer)))
        if found.get("signed_at"):
            word = "with" if found.get("time_stamped") else "without"
            claims.append(("Signed", f"{quote(found['signed_at'])}, {word} a time stamp of a trusted authority"))
        claims += [
            (label, quote(found[name]))
            for label, name in (("Written by", "generator"), ("Title", "title"))
            if found.get(name)
        ]
    return {
        "sentences": sentences,
        "claims": claims,
        "actions": [_explain_action(action) for action in found.get("actions") or ()],
        "actions_left_out": max(0, (found.get("actions_total") or 0) - len(found.get("actions") or ())),
        "ingredients": [quote(title) for title in found.get("ingredients") or ()],
        "made_of": _count_files(found.get("ingredients_total") or 0),
        "closing": CLOSING,
        "codes": [code if CODE.fullmatch(code) else quote(code) for code in map(str, found.get("codes") or ())],
    }


def _count_files(count: int) -> str | None:
    return f"{count} {'file' if count == 1 else 'files'}" if count else None


def _explain_action(action: Mapping[str, Any]) -> str:
    name = str(action.get("action")).removeprefix("c2pa.").replace("_", " ")
    # The names that the C2PA defines are words. Anything else could read as a sentence of the report.
    name = name if NAME_OF_ACTION.fullmatch(name) else quote(name)
    source = action.get("source_type")
    parts = [SOURCES[source] if source in SOURCES else quote(source)] if isinstance(source, str) else []
    if action.get("software"):
        parts.append(f"with {quote(action['software'])}")
    if action.get("of_ingredient"):
        parts.append("recorded for something that the media was made of")
    return f"{name}: {', '.join(parts)}" if parts else name
