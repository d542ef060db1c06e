"""
Jobs as a person reads them.

What a service says goes through ``plain``: it may hold anything, and none of it is for the terminal to obey.
"""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deepfakestream.results import Job, Model
from deepfakestream.terminal import plain

WIDE = 118
NARROW_COLUMNS = ("id", "status", "average", "verdict")
ID_WIDTH = 36
LISTED = 5
STYLES = {"fake": "bold red", "real": "bold green", "inconclusive": "bold yellow", "not_applicable": "bold"}


def print_job(console: Console, name: str, job: Job) -> None:
    """Print the per-segment table, average, peak, verdict, and the model that said so."""
    console.print()
    if job.segments:
        _print_segments(console, name, job)
    else:
        console.print(plain(name, "bold"))
    if job.error is not None:
        console.print(plain(job.status, "bold red"), plain(f"{job.error.detail} ({job.error.code})"))
        return
    if job.status != "succeeded":
        console.print(plain(job.status))
        return
    console.print(f"average {score(job.fake_score)}   peak {score(job.peak_score)}")
    console.print("verdict", _verdict(job), plain(f"({', '.join(job.reasons)})" if job.reasons else ""))
    judged = [person for person in job.people if person.verdict == job.verdict and len(job.people) > 1]
    for person in judged[:LISTED] if job.verdict != "real" else ():
        limit = f"; fake from {score(person.fake_from)}" if person.fake_from is not None else ""
        console.print(plain(f"        person {person.person}: {score(person.fake_score)}, {person.verdict}{limit}"))
    for stretch in job.suspicious[:LISTED]:
        when = f"{seconds(stretch.start_s)} to {seconds(stretch.end_s)}, person {stretch.person}"
        console.print(
            plain(f"        {when}: {score(stretch.fake_score)} on {counted(stretch.faces, 'face')}, {stretch.verdict}")
        )
    if len(job.suspicious) > LISTED:
        left_out = counted(len(job.suspicious) - LISTED, "more stretch", "more stretches")
        console.print(plain(f"        and {left_out} of time (--json has all of them)"))
    if job.model is not None:
        model = job.model
        found = limits(job, model)
        console.print(
            plain(
                f"model   {model.name} {model.version}, weights sha256 {model.weights_sha256[:12]}…"
                f"{f': {found}' if found else ''}; how far to trust it: deepfakestream models --card"
            )
        )


def _print_segments(console: Console, name: str, job: Job) -> None:
    table = Table(title=plain(name), title_justify="left")
    for heading in ("segment", "from", "to", "fake score", "people", "faces", "notes"):
        table.add_column(heading, justify="left" if heading == "notes" else "right")
    for segment in job.segments:
        notes = segment.error.detail if segment.error else ", ".join(segment.reasons)
        faces = f"{segment.faces_scored}/{segment.faces_found}"
        table.add_row(
            str(segment.index),
            seconds(segment.start_s),
            seconds(segment.end_s),
            score(segment.fake_score),
            str(segment.people_count),
            faces,
            plain(notes or ("" if segment.status in ("scored", "unscorable") else segment.status)),
        )
    console.print(table)
    if job.segments_next_cursor is not None:
        left_out = (job.segments_total or 0) - len(job.segments)
        console.print(plain(f"and {counted(left_out, 'more segment')}"))


def limits(job: Job, model: Model) -> str:
    """
    From where on this job's score is called fake and below which it is called real, and on how much that rests.

    Empty where nothing was scored, since there is nothing to compare with limits.
    """
    if job.fake_score is None:
        return ""
    if job.evidence is not None and job.evidence.fake_from is not None and job.evidence.real_below is not None:
        found = job.evidence
        faces = counted(found.faces, "face")
        # A mean over segments, which is rarely whole.
        about = "" if found.people == round(found.people) else "about "
        people = f", the highest of {about}{found.people:.2g} people" if found.people > 1 else ""
        return f"fake from {found.fake_from:.3g}, real below {found.real_below:.3g} (on {faces}{people})"
    low, _ = model.uncertainty_band
    return f"fake from {model.threshold:g}, real below {low:g}"


def counted(count: int, one: str, several: str = "") -> str:
    """*count* with the noun *one*, or where it is not 1 with *several*, by default *one* with an s."""
    return f"{count} {one if count == 1 else several or f'{one}s'}"


def jobs_table(jobs: list[Job], width: int) -> Table:
    """A line for each job. Ids are whole, since commands ask for them; in little width less is told beside them."""
    is_wide = width >= WIDE
    table = Table()
    for heading in ("id", "created", "status", "done", "average", "peak", "verdict"):
        if is_wide or heading in NARROW_COLUMNS:
            table.add_column(heading, no_wrap=True, min_width=ID_WIDTH if heading == "id" else None)
    for job in jobs:
        cells: dict[str, str | Text] = {
            "id": plain(job.id),
            "created": f"{job.created_at:%Y-%m-%d %H:%M:%S}",
            "status": plain(job.status),
            "done": f"{job.fraction:.0%}",
            "average": score(job.fake_score),
            "peak": score(job.peak_score),
            "verdict": _verdict(job),
        }
        table.add_row(*(cells[str(column.header)] for column in table.columns))
    return table


def _verdict(job: Job) -> Text:
    return plain(job.verdict or "", STYLES.get(job.verdict or "", ""))


def score(value: float | None) -> str:
    """A score with four digits; a dash where there is none, which is not the same as 0."""
    return "–" if value is None else f"{value:.4f}"


def seconds(value: float) -> str:
    """Minutes and seconds."""
    minutes, rest = divmod(value, 60)
    return f"{int(minutes):d}:{rest:05.2f}"


def problem_document(error: Exception) -> dict[str, Any]:
    """An error as ``--json`` prints it."""
    # The file is named beside it.
    why = error.strerror if isinstance(error, OSError) else None
    return {
        "code": getattr(error, "code", "client_error"),
        "detail": getattr(error, "detail", None) or why or str(error),
    }
