"""
Tables and lines that show jobs to a person.

Text from a service is printed by ``safe_text``, since it may contain control characters that a terminal would obey.
"""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deepfakestream.explanations import Explanation
from deepfakestream.results import Job, Model, Provenance
from deepfakestream.terminal import pluralize, printable, safe_text

MIN_FULL_WIDTH = 118
"""Columns of a terminal from which on all columns of the table of jobs are printed."""
NARROW_COLUMNS = ("id", "status", "average", "verdict")
ID_WIDTH = 36
MAX_LISTED = 5
VERDICT_STYLES = {"fake": "bold red", "real": "bold green", "inconclusive": "bold yellow", "not_applicable": "bold"}


def format_change(before: Job, after: Job) -> str:
    """Return a line that says what scoring the media of *before* again as *after* has changed."""
    outcomes = [
        f"{job.verdict} {format_score(job.fake_score)}" if job.status == "succeeded" else job.status
        for job in (before, after)
    ]
    models = [job.model.name if job.model else "no result" for job in (before, after)]
    if {before.status, after.status} != {"succeeded"}:
        mark = "not compared"
    else:
        mark = "changed" if before.verdict != after.verdict else "same"
    return f"{before.id} -> {after.id} {mark}: {outcomes[0]} ({models[0]}) -> {outcomes[1]} ({models[1]})"


def print_job(console: Console, name: str, job: Job, *, has_id: bool = False) -> None:
    """
    Print the table of segments, the average and peak scores, the verdict and the model.

    Args:
        has_id: Print the id as well, by which other commands find the job; a job of ``--local`` is stored nowhere.
    """
    console.print()
    if job.segments:
        _print_segments(console, name, job)
    else:
        console.print(safe_text(name, "bold"))
    if has_id:
        console.print(safe_text(f"job     {job.id}"))
    if job.error is not None:
        console.print(safe_text(job.status, "bold red"), safe_text(f"{job.error.detail} ({job.error.code})"))
        return
    if job.status != "succeeded":
        console.print(safe_text(job.status))
        return
    console.print(f"average {format_score(job.fake_score)}   peak {format_score(job.peak_score)}")
    console.print("verdict", _verdict_text(job), safe_text(f"({', '.join(job.reasons)})" if job.reasons else ""))
    judged = [person for person in job.people if person.verdict == job.verdict and len(job.people) > 1]
    for person in judged[:MAX_LISTED] if job.verdict != "real" else ():
        limit = f"; fake from {format_score(person.fake_from)}" if person.fake_from is not None else ""
        console.print(
            safe_text(f"        person {person.person}: {format_score(person.fake_score)}, {person.verdict}{limit}")
        )
    _print_suspicious(console, job)
    if described := describe_provenance(job.provenance):
        console.print(safe_text(described))
    if job.model is not None:
        model = job.model
        found = describe_limits(job, model)
        console.print(
            safe_text(
                f"model   {model.name} {model.version}, weights sha256 {model.weights_sha256[:12]}…"
                f"{f': {found}' if found else ''}; how far to trust it: deepfakestream models --card"
            )
        )
    if job.explanation is not None:
        console.print(safe_text(f"what raised the scores: deepfakestream explain {job.id}"))


def _print_suspicious(console: Console, job: Job) -> None:
    for stretch in job.suspicious[:MAX_LISTED]:
        when = f"{format_time(stretch.start_s)} to {format_time(stretch.end_s)}, person {stretch.person}"
        measured = f"{format_score(stretch.fake_score)} on {pluralize(stretch.faces, 'face')}, {stretch.verdict}"
        console.print(safe_text(f"        {when}: {measured}"))
    if len(job.suspicious) > MAX_LISTED:
        left_out = pluralize(len(job.suspicious) - MAX_LISTED, "more stretch", "more stretches")
        console.print(safe_text(f"        and {left_out} of time (--json has all of them)"))


def describe_explanation(found: Explanation) -> str:
    """Describe an explanation that was made, in printable lines; nothing in it can pose as a line of its own."""
    if not found.people:
        return f"job {printable(found.job_id)}: no face was scored, so there is nothing to explain"
    model = f" for {found.model.name} {found.model.version}" if found.model is not None else ""
    people = pluralize(len(found.people), "person", "people")
    lines = [f"job {found.job_id}: {people} explained{model}, by the face with the highest score"]
    for person in found.people:
        score, hidden = format_score(person.explained_score), format_score(person.score_without_hottest_tenth)
        nothing = "" if person.explains else "; the map explains nothing here"
        lines += [
            f"person {person.person}: face at {format_time(person.time_s)}, score {format_score(person.face_score)}",
            f"        with the hottest tenth of its map hidden: {hidden} instead of {score}{nothing}",
        ]
        if person.thumbnails:
            faces = (f"{format_time(each.time_s)} {format_score(each.fake_score)}" for each in person.thumbnails)
            lines.append(f"        faces over time: {', '.join(faces)}")
    if found.note:
        lines.append(found.note)
    return "\n".join(map(printable, lines))


def _print_segments(console: Console, name: str, job: Job) -> None:
    table = Table(title=safe_text(name), title_justify="left")
    for heading in ("segment", "from", "to", "fake score", "people", "faces", "notes"):
        table.add_column(heading, justify="left" if heading == "notes" else "right")
    for segment in job.segments:
        notes = segment.error.detail if segment.error else ", ".join(segment.reasons)
        faces = f"{segment.faces_scored}/{segment.faces_found}"
        table.add_row(
            str(segment.index),
            format_time(segment.start_s),
            format_time(segment.end_s),
            format_score(segment.fake_score),
            str(segment.people_count),
            faces,
            safe_text(notes or ("" if segment.status in ("scored", "unscorable") else segment.status)),
        )
    console.print(table)
    if job.segments_next_cursor is not None:
        left_out = (job.segments_total or 0) - len(job.segments)
        console.print(safe_text(f"and {pluralize(left_out, 'more segment')}"))


def describe_provenance(found: Provenance | None) -> str:
    """Describe Content Credentials in one line; empty if there are none, or none that could be read."""
    words = {"valid": "valid", "untrusted": "intact, but of an unknown signer", "invalid": "not valid"}
    if found is None or found.state not in words:
        return ""
    signer = f", signed by {found.signer!r}" if found.signer else ""
    made = "; they say that a generative model made it, wholly or in part" if found.ai_generated else ""
    return f"content credentials: {words[found.state]}{signer}{made}"


def describe_limits(job: Job, model: Model) -> str:
    """
    Describe the limits of this job's verdicts and the evidence on which they rest.

    Returns:
        Text such as ``fake from 0.6, real below 0.1 (on 9 faces)``; empty if nothing was scored.
    """
    if job.fake_score is None:
        return ""
    if job.evidence is not None and job.evidence.fake_from is not None and job.evidence.real_below is not None:
        found = job.evidence
        faces = pluralize(found.faces, "face")
        # The number of people is a mean over segments and rarely whole.
        about = "" if found.people == round(found.people) else "about "
        people = f", the highest of {about}{found.people:.2g} people" if found.people > 1 else ""
        return f"fake from {found.fake_from:.3g}, real below {found.real_below:.3g} (on {faces}{people})"
    low, _ = model.uncertainty_band
    return f"fake from {model.threshold:g}, real below {low:g}"


def make_jobs_table(jobs: list[Job], width: int) -> Table:
    """
    Make a table with a line for each job.

    Args:
        width: Columns of the terminal. Ids are never shortened, since commands need them whole; in a narrow terminal
            fewer columns are printed beside them.
    """
    has_full_width = width >= MIN_FULL_WIDTH
    table = Table()
    for heading in ("id", "created", "status", "done", "average", "peak", "verdict"):
        if has_full_width or heading in NARROW_COLUMNS:
            table.add_column(heading, no_wrap=True, min_width=ID_WIDTH if heading == "id" else None)
    for job in jobs:
        cells: dict[str, str | Text] = {
            "id": safe_text(job.id),
            "created": f"{job.created_at:%Y-%m-%d %H:%M:%S}",
            "status": safe_text(job.status),
            "done": f"{job.fraction:.0%}",
            "average": format_score(job.fake_score),
            "peak": format_score(job.peak_score),
            "verdict": _verdict_text(job),
        }
        table.add_row(*(cells[str(column.header)] for column in table.columns))
    return table


def _verdict_text(job: Job) -> Text:
    return safe_text(job.verdict or "", VERDICT_STYLES.get(job.verdict or "", ""))


def format_score(value: float | None) -> str:
    """Format a score with four digits; a dash if there is none, which is not the same as 0."""
    return "–" if value is None else f"{value:.4f}"


def format_time(value: float) -> str:
    """Format *value* seconds as minutes and seconds."""
    minutes, rest = divmod(value, 60)
    return f"{int(minutes):d}:{rest:05.2f}"


def problem_document(error: Exception) -> dict[str, Any]:
    """Return an error in the form that ``--json`` prints."""
    # The text of an OSError repeats the name of the file, which is printed already.
    why = error.strerror if isinstance(error, OSError) else None
    return {
        "code": getattr(error, "code", "client_error"),
        "detail": getattr(error, "detail", None) or why or str(error),
    }
