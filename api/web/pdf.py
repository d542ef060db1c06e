"""
The report of a job as a PDF, set by Typst.

The values of the report go into ``templates/report.typ`` as JSON and never as markup. The root of the compiler is a
folder that has nothing but the images of explained faces, under names of ours, and it has no packages: it reads no
other file but fonts.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import structlog

from api.web.faces import Faces
from api.web.quoting import quote
from api.web.timeline import Timeline, clock
from api.web.wording import explain_map, explain_mark, name_limit, name_moment, points
from shared.documents.jobs import JobDocument

TEMPLATE: Final = Path(__file__).parent / "templates" / "report.typ"
MAX_BARS: Final = 500
"""Bars that are drawn; of more, neighbours are drawn as the highest of them. A page is not wide enough for more."""
MAX_ROWS: Final = 40
"""Rows of a table, so that the report stays a few pages long."""
MAX_INTERVALS: Final = 8
MAX_NAME: Final = 200
NO_FACES: Final = Faces()

logger = structlog.get_logger(__name__)


def render_pdf(values: Mapping[str, Any], faces: Faces = NO_FACES) -> bytes:
    """
    Set a report.

    Args:
        values: Those of ``api.web.contents.describe_report``.
        faces: Explained faces. If the compiler cannot read an image of them, the report is without faces.

    Returns:
        A tagged PDF. The same values give the same bytes. No standard such as PDF/UA is asked for: it forbids text in
        scripts that the fonts lack, and a file name must not prevent a report.
    """
    # Here, since it is a library of 60 MB that few processes need.
    import typst

    try:
        return _compile(values, faces)
    except typst.TypstError:
        if not faces.people:
            raise
        logger.warning("report_faces_unreadable", job_id=str(values["job"].id))
        return _compile(values, NO_FACES)


def _compile(values: Mapping[str, Any], faces: Faces) -> bytes:
    import typst

    job: JobDocument = values["job"]
    made = job.finished_at or job.created_at
    files = {name: f"{number}.webp" for number, name in enumerate(faces.images)}
    with tempfile.TemporaryDirectory(prefix="report-") as root:
        for name, file in files.items():
            (Path(root) / file).write_bytes(faces.images[name])
        data = {**lay_out(values), **_lay_out_faces(values, faces, files)}
        compiler = typst.Compiler(
            TEMPLATE.read_bytes(),
            root=root,
            ignore_system_fonts=False,
            package_path=root,
            package_cache_path=root,
            sys_inputs={"data": json.dumps(data, allow_nan=False)},
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
    span: Callable[[float, float], str] = values["span"]
    # The last page begins where one second is left.
    ends_at = timeline.duration_s - 1.0 if values["is_image"] else timeline.duration_s
    marks = timeline.marks if has_times else []
    people = [
        [
            str(person["person"]),
            "none" if person["fake_score"] is None else points(person["fake_score"]),
            "no face was scored" if person["fake_score"] is None else values["explain_person"](person["verdict"]),
            _list_intervals(person["seen"], span) if has_times else "",
        ]
        for person in job.people or []
    ]
    return {
        "job_id": str(job.id),
        "about": _describe_file(values["filename"], job),
        "title": values["title"],
        "lead": _lead(values),
        "review": _review(values),
        "hints": values["hints"],
        "bars": _thin_out(timeline) if has_times else [],
        "marks": [{"x": mark.x, "width": mark.width} for mark in marks],
        "limits": [{"y": limit.y} for limit in timeline.limits],
        "chart_words": _describe_chart(timeline, values["bars_words"]),
        "first_time": span(0.0, 0.0),
        "last_time": span(ends_at, ends_at),
        "interval": "Page" if values["is_image"] else "Time",
        "suspicious_title": "Suspicious pages" if values["is_image"] else "Suspicious times",
        "suspicious": [
            [span(mark.start_s, mark.end_s), str(mark.person), points(mark.score), explain_mark(mark.verdict)]
            for mark in marks[:MAX_ROWS]
        ],
        "suspicious_words": f"and {len(marks) - MAX_ROWS} more" if len(marks) > MAX_ROWS else None,
        "people": people,
        "people_words": values["people_words"],
        "provenance": _describe_provenance(values.get("provenance")),
        "origin": values["origin"],
        "checkpoint": values["checkpoint"],
        "card_words": _point_to_card(values),
        "closing": values["closing"],
    }


def _lay_out_faces(values: Mapping[str, Any], faces: Faces, files: Mapping[str, str]) -> dict[str, Any]:
    """Return what the template shows of explained faces; *files* are the names of images below the compiler's root."""

    def place(time_s: float, score: float) -> str:
        return points(score) if values["is_image"] else f"{clock(time_s)}: {points(score)}"

    people = []
    for person in faces.people:
        name = f"person {person['person']}"
        shown = [
            ("crop", place(person["time_s"], person["face_score"]), f"The face of {name} as the network saw it"),
            ("overlay", "where it reacted", "The same face in grey; yellow where the detector reacted most"),
        ]
        cells = [{"file": files[person["sources"][kind]], "words": words, "alt": alt} for kind, words, alt in shown]
        cells += [
            {
                "file": files[each["source"]],
                "words": place(each["time_s"], each["fake_score"]),
                "alt": f"Face of {name} at {clock(each['time_s'])}",
            }
            for each in person["thumbnails"]
        ]
        when = "" if values["is_image"] else f", at {clock(person['time_s'])}"
        words = f"Highest score {points(person['face_score'])}{when}. {explain_map(person)}"
        people.append({"title": name.capitalize(), "words": words, "cells": cells})
    return {"faces": people, "map_note": values["map_note"], "faces_left_out": faces.explain_left_out()}


def _lead(values: Mapping[str, Any]) -> list[str]:
    score, limits = values["job"].fake_score, values["limits"]
    if not values["is_final"] or score is None:
        return [str(values["meaning"])]
    sentences = [f"Score {points(score)} of 100, the mean over the media.", *([limits] if limits else [])]
    return [" ".join(sentences), str(values["meaning"]), values["not_a_share"]]


def _describe_file(name: str | None, job: JobDocument) -> str:
    what = f"Job {job.id}"
    if name is not None:
        what = f"File {quote(name if len(name) <= MAX_NAME else f'{name[:MAX_NAME]}…')}"
    return what if job.finished_at is None else f"{what}, analysed on {name_moment(job.finished_at)}"


def _review(values: Mapping[str, Any]) -> str | None:
    review = values["job"].review
    if not values["finding"] or not review:
        return None
    note = f" {quote(review['note'])}" if review["note"] else ""
    return f"{values['finding']}{note} Recorded with the key {quote(review['reviewer'])} on {values['review_time']}."


def _list_intervals(seen: Sequence[Mapping[str, float]], span: Callable[[float, float], str]) -> str:
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


def _describe_chart(timeline: Timeline, words: str) -> str:
    if timeline.limits:
        limits = " and ".join(map(name_limit, timeline.limits))
        words += f" The dashed lines are the limits for the mean over the media, not for a single bar: {limits}."
    return words + (" Shaded times are suspicious." if timeline.marks else "")


def _point_to_card(values: Mapping[str, Any]) -> str | None:
    """Return where the whole model card is; None if the checkpoint has none."""
    if not values["model_card"]:
        return None
    name = values["printable"](str((values["job"].model or {}).get("name")))
    return (
        f"These are figures of its model card. The report as a page has all of it, and so does “deepfakestream models "
        f"--card --model {name}”."
    )


def _describe_provenance(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return []
    sentences = [f"{label}: {value}." for label, value in found["claims"]]
    sentences += [f"Recorded action: {action}." for action in found["actions"]]
    if found["actions_left_out"]:
        sentences.append(f"And {found['actions_left_out']} more recorded actions.")
    if found["made_of"]:
        titles = f": {', '.join(found['ingredients'])}" if found["ingredients"] else ""
        sentences.append(f"Made of {found['made_of']}{titles}.")
    if found["codes"]:
        sentences.append(f"Failed checks: {', '.join(found['codes'])}.")
    return [" ".join(found["sentences"]), *sentences, found["closing"]]
