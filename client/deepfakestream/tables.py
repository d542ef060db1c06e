"""
Tables and lines that show jobs to a person.

Text from a service is printed by ``safe_text``, since it may contain control characters that a terminal would obey.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from deepfakestream.explanations import Explanation
from deepfakestream.reasons import REASONS
from deepfakestream.results import Job, Model, Provenance
from deepfakestream.terminal import pluralize, printable, safe_text

MIN_FULL_WIDTH = 130
"""Columns of a terminal from which on all columns of the table of jobs are printed."""
MIN_SCORE_WIDTH = 74
"""Columns from which on the time and the score of jobs are printed beside their ids and outcomes."""
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
    Print the table of segments, the average and peak scores, the verdict and its limits.

    Args:
        has_id: Print the id as well, by which other commands find the job; a job of ``--local`` is stored nowhere.
    """
    _print_line(console, Text())
    _print_line(console, safe_text(name, "bold"))
    if job.segments:
        _print_segments(console, job)
    if has_id:
        _print_line(console, safe_text(f"job     {job.id}"))
    if job.error is not None:
        failure = safe_text(f" {job.error.detail} ({job.error.code})")
        _print_line(console, safe_text(job.status, "bold red").append_text(failure))
    elif job.status != "succeeded":
        _print_line(console, safe_text(job.status))
    else:
        for line in _outcome_lines(job):
            _print_line(console, line)


def _print_line(console: Console, line: Text) -> None:
    """Print *line*, which only a terminal breaks; the rest then stands below its first word."""
    indent = len(line.plain) - len(line.plain.lstrip(" "))
    if console.is_terminal and indent:
        console.print(Padding.indent(line[indent:], indent), highlight=False)
    else:
        console.print(line, soft_wrap=not console.is_terminal, highlight=False)


def _outcome_lines(job: Job) -> list[Text]:
    reasons = safe_text(f" ({', '.join(job.reasons)})" if job.reasons else "")
    lines = [
        Text(f"average {format_score(job.fake_score)}   peak {format_score(job.peak_score)}"),
        Text("verdict ").append_text(_verdict_text(job)).append_text(reasons),
        *(Text(f"        {REASONS[reason]}") for reason in job.reasons if reason in REASONS),
    ]
    judged = [person for person in job.people if person.verdict == job.verdict and len(job.people) > 1]
    for person in judged[:MAX_LISTED] if job.verdict != "real" else ():
        limit = f"; fake from {format_score(person.fake_from)}" if person.fake_from is not None else ""
        score = format_score(person.fake_score)
        lines.append(safe_text(f"        person {person.person}: {score}, {person.verdict}{limit}"))
    lines += [safe_text(f"        {described}") for described in describe_suspicious(job)]
    if described := describe_provenance(job.provenance):
        lines.append(safe_text(described))
    if job.model is not None and (limits := describe_limits(job, job.model)):
        lines.append(safe_text(f"limits  {limits}"))
    if job.explanation is not None:
        lines.append(safe_text(f"what raised the scores: deepfakestream explain {job.id}"))
    return lines


def describe_suspicious(job: Job) -> list[str]:
    """Describe the first suspicious stretches of time, a line for each; those of an image have no times."""
    lines = []
    for stretch in job.suspicious[:MAX_LISTED]:
        when = "" if is_still(job) else f"{format_time(stretch.start_s)} to {format_time(stretch.end_s)}, "
        measured = f"{format_score(stretch.fake_score)} on {pluralize(stretch.faces, 'face')}, {stretch.verdict}"
        lines.append(f"{when}person {stretch.person}: {measured}")
    if len(job.suspicious) > MAX_LISTED:
        left_out = pluralize(len(job.suspicious) - MAX_LISTED, "more stretch", "more stretches")
        lines.append(f"and {left_out} of time (--json has all of them)")
    return lines


def is_still(job: Job) -> bool:
    """Whether the media is an image of one page, so that times say nothing about it."""
    media = job.raw.get("media")
    return isinstance(media, dict) and media.get("kind") == "image" and len(job.segments) <= 1


def describe_explanation(found: Explanation) -> str:
    """Describe an explanation that was made, in printable lines; nothing in it can pose as a line of its own."""
    if not found.people:
        return f"job {printable(found.job_id)}: no face was scored, so there is nothing to explain"
    model = f" for {found.model.name} {found.model.version}" if found.model is not None else ""
    people = pluralize(len(found.people), "person", "people")
    lines = [f"job {found.job_id}: {people} explained{model}, by the face with the highest score"]
    # The only picture of an image is at 0; of a video, some face is later.
    times = [time_s for each in found.people for time_s in (each.time_s, *(face.time_s for face in each.thumbnails))]
    has_times = any(times)
    for person in found.people:
        score, hidden = format_score(person.explained_score), format_score(person.score_without_hottest_tenth)
        when = f" at {format_time(person.time_s)}" if has_times else ""
        nothing = "" if person.explains else "; the map explains nothing here"
        lines += [
            f"person {person.person}: face{when}, score {format_score(person.face_score)}",
            f"        with the hottest tenth of its map hidden: {hidden} instead of {score}{nothing}",
        ]
        if person.thumbnails and has_times:
            faces = (f"{format_time(each.time_s)} {format_score(each.fake_score)}" for each in person.thumbnails)
            lines.append(f"        faces over time: {', '.join(faces)}")
    if found.note:
        lines.append(found.note)
    return "\n".join(map(printable, lines))


def _print_segments(console: Console, job: Job) -> None:
    table = Table()
    times = () if is_still(job) else ("from", "to")
    for heading in ("segment", *times, "fake score", "people", "faces", "notes"):
        table.add_column(heading, justify="left" if heading == "notes" else "right")
    for segment in job.segments:
        notes = segment.error.detail if segment.error else ", ".join(segment.reasons)
        faces = f"{segment.faces_scored}/{segment.faces_found}"
        table.add_row(
            str(segment.index),
            *((format_time(segment.start_s), format_time(segment.end_s)) if times else ()),
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


def make_jobs_table(jobs: Sequence[Job], width: int) -> Table:
    """
    Make a table with a line for each job.

    Args:
        width: Columns of the terminal. Ids are never shortened, since commands need them whole; a terminal of less than
            ``MIN_FULL_WIDTH`` columns gets fewer of them, and one of less than ``MIN_SCORE_WIDTH`` ids and outcomes.
    """
    is_full = width >= MIN_FULL_WIDTH
    zone = f" ({jobs[0].created_at.astimezone():%Z})" if jobs else ""
    table = Table() if is_full else Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    headings = ("id", f"created{zone}", "status", "done", "took", "average", "peak", "verdict")
    has_scores = width >= MIN_SCORE_WIDTH
    short = ("id", f"created{zone}", "average", "outcome") if has_scores else ("id", "outcome")
    for heading in headings if is_full else short:
        table.add_column(heading, no_wrap=True, min_width=ID_WIDTH if heading == "id" else None)
    for job in jobs:
        created, score = job.created_at.astimezone(), format_score(job.fake_score)
        if is_full:
            table.add_row(
                safe_text(job.id),
                f"{created:%Y-%m-%d %H:%M:%S}",
                safe_text(job.status),
                f"{job.fraction:.0%}",
                _format_duration(job),
                score,
                format_score(job.peak_score),
                _verdict_text(job),
            )
        else:
            outcome = _verdict_text(job) if job.verdict else safe_text(job.status)
            between = (f"{created:%Y-%m-%d %H:%M}", score) if has_scores else ()
            table.add_row(safe_text(job.id), *between, outcome)
    return table


def _format_duration(job: Job) -> str:
    """Format the time from submission to the end; a dash if the job has not ended."""
    return "–" if job.finished_at is None else f"{(job.finished_at - job.created_at).total_seconds():.1f} s"


def _verdict_text(job: Job) -> Text:
    return safe_text(job.verdict or "", VERDICT_STYLES.get(job.verdict or "", ""))


def format_score(value: float | None) -> str:
    """Format a score with four digits; a dash if there is none, which is not the same as 0."""
    return "–" if value is None else f"{value:.4f}"


def format_time(value: float) -> str:
    """Format *value* seconds as minutes and seconds."""
    minutes, rest = divmod(value, 60)
    return f"{int(minutes):d}:{rest:05.2f}"
