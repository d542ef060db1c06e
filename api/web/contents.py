"""What a report says, of a job's document and segments alone: the same for a page, a file and a PDF."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from api.web.cards import describe_checkpoint, render_card
from api.web.origin import describe_origin
from api.web.provenance_wording import explain_provenance
from api.web.quoting import quote
from api.web.timeline import clock, draw_timeline, name_interval
from api.web.wording import (
    CLOSING,
    MAP_NOTE,
    NOT_A_SHARE,
    count_people,
    explain_bars,
    explain_error_rates,
    explain_finding,
    explain_limits,
    explain_map,
    explain_mark,
    explain_outcome,
    explain_person,
    explain_reason,
    list_cautions,
    make_printable,
    name_limit,
    name_moment,
    points,
)
from shared.documents.jobs import JobDocument
from shared.errors import ModelError, UnknownModelError
from shared.manifests import Manifest, find_manifest
from shared.states import FINAL_JOB_STATUSES, Verdict

CARD_FILE: Final = "MODEL_CARD.md"
STYLES: Final = Path(__file__).parent / "static" / "pages.css"


def read_styles() -> str:
    """Return the style sheet, for a report that is one file."""
    return STYLES.read_text("utf-8")


def describe_report(document: JobDocument, segments: Sequence[Any], models_dir: Path) -> dict[str, Any]:
    """
    Return the values of ``report.html`` and ``report.typ``, but for the token of a link, explained faces, whether the
    job ``is_stream``, and what is ``live`` in one that runs.

    Args:
        segments: Summaries of all segments, in order, with ``start_s``, ``end_s`` and ``fake_score``.
        models_dir: Folder of the installed checkpoints, for the model card.
    """
    manifest = _find_checkpoint(models_dir, document.model or {})
    title, meaning = explain_outcome(document)
    error_rates = explain_error_rates(manifest.metrics) if manifest and document.fake_score is not None else None
    is_image = document.media is not None and document.media.kind == "image"
    people = document.people or []
    return {
        "job": document,
        "is_final": document.status in FINAL_JOB_STATUSES,
        "title": title,
        "meaning": meaning,
        "limits": explain_limits(document.evidence),
        "hints": [
            *(explain_reason(reason) for reason in document.reasons),
            *list_cautions(document),
            *([error_rates] if error_rates else []),
        ],
        "finding": explain_finding(document.review["finding"]) if document.review else None,
        "review_time": _read_review_time(document.review),
        "timeline": draw_timeline(segments, document.evidence, document.suspicious or []),
        "bars_words": explain_bars(is_image=is_image),
        "people_words": count_people(len(people), document.people_total or 0, is_image=is_image),
        "is_image": is_image,
        "is_one_page": is_image and len(segments) == 1,
        "is_stored": document.media is not None and document.media.stored,
        "filename": _read_filename(document.metadata),
        "provenance": explain_provenance(document.provenance),
        "model_card": _read_card(models_dir, manifest) if manifest else None,
        "render_card": render_card,
        "checkpoint": describe_checkpoint(manifest) if manifest else [],
        "origin": describe_origin(document),
        "printable": make_printable,
        "quote": quote,
        "clock": clock,
        "span": partial(name_interval, is_image=is_image),
        "moment": name_moment,
        "points": points,
        "name_limit": name_limit,
        "explain_mark": explain_mark,
        "explain_person": partial(explain_person, is_decided=document.verdict in (Verdict.FAKE, Verdict.REAL)),
        "explain_map": explain_map,
        "not_a_share": NOT_A_SHARE,
        "closing": CLOSING,
        "is_stream": False,
        "live": None,
        "map_note": MAP_NOTE,
    }


def _read_review_time(review: Mapping[str, Any] | None) -> str | None:
    """Return when a review was recorded, as the report shows moments."""
    if not review:
        return None
    try:
        return name_moment(datetime.fromisoformat(review["reviewed_at"]))
    except ValueError:
        return make_printable(review["reviewed_at"])


def _read_filename(metadata: dict[str, Any]) -> str | None:
    """Return the file name in the metadata of a job, where the page with the upload puts it, fit to be shown."""
    name = metadata.get("filename")
    return make_printable(name) if isinstance(name, str) and name else None


def _find_checkpoint(models_dir: Path, model: dict[str, Any]) -> Manifest | None:
    """Return the manifest of the checkpoint that judged the job, if that very checkpoint is installed."""
    try:
        manifest = find_manifest(models_dir, str(model.get("name")))
    except (OSError, UnknownModelError, ModelError):
        return None
    return manifest if manifest.weights.sha256 == model.get("weights_sha256") else None


def _read_card(models_dir: Path, manifest: Manifest) -> str | None:
    try:
        return (models_dir / manifest.name / CARD_FILE).read_text("utf-8", errors="replace")
    except OSError:
        return None
