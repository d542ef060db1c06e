"""
The report of a job as a PDF, set by Typst.

The values of the report go into ``templates/report.typ`` as JSON and never as markup. The compiler has an empty folder
as its root and no packages, so that it reads no file but the fonts that it brings.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from api.web.timeline import Mark, Timeline, clock
from shared.documents.jobs import JobDocument

TEMPLATE: Final = Path(__file__).parent / "templates" / "report.typ"
MAX_BARS: Final = 500
"""Bars that are drawn; of more, neighbours are drawn as the highest of them. A page is not wide enough for more."""
MAX_ROWS: Final = 40
"""Rows of a table, so that the report stays a few pages long."""
MAX_INTERVALS: Final = 8
MAX_NAME: Final = 200
RESULTS: Final = {"fake": "signs of a swap", "real": "no signs of a swap", "inconclusive": "not decided"}


def render_pdf(values: Mapping[str, Any]) -> bytes:
    """
    Set a report.

    Args:
        values: Those of ``api.web.contents.describe_report``.

    Returns:
        A tagged PDF. The same values give the same bytes. No standard such as PDF/UA is asked for: it forbids text in
        scripts that the fonts lack, and a file name must not prevent a report.
    """
    # Here, since it is a library of 60 MB that few processes need.
    import typst

    job: JobDocument = values["job"]
    made = job.finished_at or job.created_at
    with tempfile.TemporaryDirectory(prefix="report-") as root:
        compiler = typst.Compiler(
            TEMPLATE.read_bytes(),
            root=root,
            ignore_system_fonts=False,
            package_path=root,
            package_cache_path=root,
            sys_inputs={"data": json.dumps(lay_out(values), allow_nan=False)},
        )
        found = compiler.compile(format="pdf", timestamp=int(made.timestamp()))
    if not isinstance(found, bytes):
        raise TypeError("the compiler returned no document")
    return found


def lay_out(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template shows, as JSON: texts, and coordinates in percent."""
    job: JobDocument = values["job"]
    timeline: Timeline = values["timeline"]
    has_times = not values["is_one_page"]
    span = _PageNames() if values["is_image"] else _Times()
    marks = timeline.marks if has_times else []
    people = [
        [
            str(person["person"]),
            "none" if person["fake_score"] is None else points(person["fake_score"]),
            "no face was scored" if person["fake_score"] is None else RESULTS.get(person["verdict"], "not decided"),
            _list_intervals(person["seen"], span) if has_times else "",
        ]
        for person in job.people or []
    ]
    return {
        "job_id": str(job.id),
        "about": _describe_file(values["filename"], job),
        "title": _title(values),
        "lead": _lead(values),
        "review": _review(values),
        "hints": [*values["reasons"], *values["cautions"], *_error_rates(values)],
        "bars": _thin_out(timeline) if has_times else [],
        "marks": [{"x": mark.x, "width": mark.width} for mark in marks],
        "limits": [{"y": limit.y} for limit in timeline.limits],
        "chart_words": _describe_chart(timeline),
        "first_time": span.first,
        "last_time": span(timeline.duration_s, timeline.duration_s),
        "suspicious": [_describe_mark(mark, span) for mark in marks[:MAX_ROWS]],
        "suspicious_words": f"and {len(marks) - MAX_ROWS} more" if len(marks) > MAX_ROWS else None,
        "people": people,
        "people_words": _count_people(job),
        "provenance": _describe_provenance(values.get("provenance")),
        "origin": _describe_origin(job),
    }


def points(score: float) -> str:
    """Return a score as reports show it: from 0 to 100, and not in percent, which readers take for a probability."""
    return f"{100 * score:.1f}"


class _Times:
    """Names of intervals of a video."""

    first = clock(0.0)

    def __call__(self, start_s: float, end_s: float) -> str:
        return clock(start_s) if end_s <= start_s else f"{clock(start_s)}–{clock(end_s)}"


class _PageNames:
    """Names of the pages of an image, whose times count them from 0."""

    first = "page 1"

    def __call__(self, start_s: float, end_s: float) -> str:
        # The end of the last page is its number.
        return f"page {int(start_s) + 1}" if end_s > start_s else f"page {max(1, int(start_s))}"


def _title(values: Mapping[str, Any]) -> str:
    job: JobDocument = values["job"]
    if not values["is_final"]:
        return "Being analysed"
    if job.error:
        return "No result"
    return "Cancelled" if job.status == "cancelled" else str(values["title"])


def _lead(values: Mapping[str, Any]) -> list[str]:
    job: JobDocument = values["job"]
    if not values["is_final"]:
        return ["The job has not ended yet. Get the report again when it has."]
    if job.error:
        return [f"The job failed: {job.error.detail} ({job.error.code})"]
    if job.status == "cancelled":
        return ["The job was cancelled before it had a result."]
    lead = []
    limits = job.evidence or {}
    if job.fake_score is not None:
        sentence = f"Score {points(job.fake_score)} of 100, the mean over the media."
        if limits.get("fake_from") is not None:
            sentence += (
                f" Media like this is called fake from {points(limits['fake_from'])} on and real below"
                f" {points(limits['real_below'])}; what is between is not decided."
            )
        lead.append(sentence)
    return [*lead, str(values["meaning"])]


def _describe_file(name: str | None, job: JobDocument) -> str:
    what = f"Job {job.id}" if name is None else f"File {name[:MAX_NAME]}{'…' if len(name) > MAX_NAME else ''}"
    return what if job.finished_at is None else f"{what}, analysed on {_moment(job.finished_at)}"


def _review(values: Mapping[str, Any]) -> str | None:
    review, printable = values["job"].review, values["printable"]
    if not values["finding"] or not review:
        return None
    note = f" “{printable(review['note'])}”" if review["note"] else ""
    return (
        f"{values['finding']}{note} Recorded with the key “{printable(review['reviewer'])}” on {review['reviewed_at']}."
    )


def _error_rates(values: Mapping[str, Any]) -> list[str]:
    return [values["error_rates"]] if values["error_rates"] and values["job"].fake_score is not None else []


def _describe_mark(mark: Mark, span: _Times | _PageNames) -> list[str]:
    strength = "clearly" if mark.verdict == "fake" else "somewhat"
    meaning = f"{strength} above what genuine media shows"
    return [span(mark.start_s, mark.end_s), str(mark.person), points(mark.score), meaning]


def _list_intervals(seen: Sequence[Mapping[str, float]], span: _Times | _PageNames) -> str:
    names = ", ".join(span(one["start_s"], one["end_s"]) for one in seen[:MAX_INTERVALS])
    return names if len(seen) <= MAX_INTERVALS else f"{names} and {len(seen) - MAX_INTERVALS} more times"


def _thin_out(timeline: Timeline) -> list[dict[str, Any]]:
    """Return at most ``MAX_BARS`` bars; of neighbours that are drawn as one, the highest."""
    step = -(-len(timeline.bars) // MAX_BARS) or 1
    bars = []
    for at in range(0, len(timeline.bars), step):
        some = timeline.bars[at : at + step]
        top = max(some, key=lambda bar: -1.0 if bar.score is None else bar.score)
        width = some[-1].x + some[-1].width - some[0].x
        bars.append({"x": some[0].x, "width": width, "y": top.y, "height": top.height, "level": top.level})
    return bars


def _describe_chart(timeline: Timeline) -> str:
    words = (
        "Each bar is a part of the media, as high as its score from 0 to 100; a grey one has no score, because no face "
        "in it could be scored."
    )
    if timeline.limits:
        limits = " and ".join(
            f"{'fake from' if limit.name == 'fake' else 'real below'} {points(limit.score)}"
            for limit in timeline.limits
        )
        words += f" The dashed lines are the limits for the mean over the media: {limits}."
    return words + (" Shaded times are suspicious." if timeline.marks else "")


def _count_people(job: JobDocument) -> str:
    listed, total = len(job.people or []), job.people_total or 0
    words = f"{total} {'person was' if total == 1 else 'people were'} distinguished"
    if total > listed:
        words += f"; the {listed} most suspicious are listed"
    return f"{words}. Numbers are no identities, and somebody who is seen again after a cut may be counted twice."


def _describe_provenance(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return []
    claims = [f"{label}: {value}." for label, value in found["claims"]]
    actions = [f"Recorded action: {action}." for action in found["actions"]]
    return [" ".join(found["sentences"]), *claims, *actions]


def _describe_origin(job: JobDocument) -> list[tuple[str, str, bool]]:
    """Return label, value, and whether the value is a digest or another code."""
    rows = [("Job", f"{job.id}", True), ("Submitted", _moment(job.created_at), False)]
    if job.finished_at is not None:
        rows.append(("Ended", _moment(job.finished_at), False))
    if job.parent_id is not None:
        rows.append(("Media of job", f"{job.parent_id}", True))
    media = job.media
    if media is not None:
        size = f"{media.width_px} × {media.height_px} pixels" if media.width_px else None
        duration = clock(media.duration_s) if media.duration_s else None
        facts = [f"{media.size_bytes} bytes", media.container, media.codec, size, duration]
        rows.append(("File", ", ".join(fact for fact in facts if fact), False))
        rows.append(("SHA-256 of the file", media.sha256, True))
    options = job.options
    rows.append(
        ("Sampling", f"{options.sample_fps:g} frames a second, segments of {options.segment_seconds:g} s", False)
    )
    if job.model:
        rows.append(("Checkpoint", f"{job.model.get('name')} {job.model.get('version', '')}", False))
        rows.append(("SHA-256 of weights", str(job.model.get("weights_sha256")), True))
    return rows


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d at %H:%M UTC")
