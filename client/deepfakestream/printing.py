"""The three ways in which ``scan`` prints results: tables for people, and JSON and CSV for programs."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any, Final, Literal, Protocol

from rich.console import Console

from deepfakestream.outcomes import ScanResult, describe_models, describe_outcomes
from deepfakestream.results import Job
from deepfakestream.tables import print_job
from deepfakestream.terminal import make_console, printable, say

Form = Literal["tables", "json", "csv"]
CSV_COLUMNS: Final = (
    "file",
    "job_id",
    "status",
    "verdict",
    "fake_score",
    "peak_score",
    "reasons",
    "model",
    "model_version",
    "created_at",
    "seconds",
    "error_code",
    "error",
)
_FORMULA_STARTS: Final = ("=", "+", "-", "@")


class Printer(Protocol):
    """Prints the results of a command: each when it is known, and what they amount to."""

    def print_result(self, result: ScanResult) -> None:
        """Print the result of one source."""

    def print_end(self, results: Sequence[ScanResult], seconds: float) -> None:
        """Print what all results amount to, after *seconds*."""


class TablePrinter:
    """
    Prints tables, and at the end counts and checkpoints; what could not be scanned goes to standard error.

    Args:
        console: Standard output by default.
        is_waiting: Whether jobs were waited for; otherwise only their ids are known.
        is_stored: Whether other commands find the jobs by their ids, unlike those of ``--local``.
    """

    def __init__(self, console: Console | None = None, *, is_waiting: bool = True, is_stored: bool = True) -> None:
        self._console = console or make_console()
        self._is_waiting = is_waiting
        self._is_stored = is_stored

    def print_result(self, result: ScanResult) -> None:
        """Print the table of a job, or the error."""
        if result.job is None:
            say(f"{result.source}: {describe_error(result.error)}", to_stderr=True)
        elif self._is_waiting:
            print_job(self._console, result.source, result.job, has_id=self._is_stored)
        else:
            self._console.print(
                printable(f"{result.source}: job {result.job.id} {result.job.status}"), soft_wrap=True, highlight=False
            )

    def print_end(self, results: Sequence[ScanResult], seconds: float) -> None:
        """Print the checkpoints, and counts if there are several results."""
        lines = describe_models(results)
        if len(results) > 1:
            lines.append(describe_outcomes(results, seconds, submitted_only=not self._is_waiting))
        if lines:
            self._console.print()
        for line in lines:
            self._console.print(printable(line), soft_wrap=True, highlight=False)


class JSONPrinter:
    """Prints one JSON object a line, and the counts to standard error."""

    def __init__(self, *, is_waiting: bool = True) -> None:
        self._is_waiting = is_waiting

    def print_result(self, result: ScanResult) -> None:
        """Print the job as the API returned it, or the error."""
        document = (
            {"file": result.source, "job": result.job.raw}
            if result.job is not None
            else {"file": result.source, "error": problem_document(result.error or RuntimeError())}
        )
        say(json.dumps(document))

    def print_end(self, results: Sequence[ScanResult], seconds: float) -> None:
        """Print counts to standard error if there are several results."""
        _say_counts(results, seconds, is_waiting=self._is_waiting)


class ErrorPrinter:
    """Prints errors and counts to standard error, for a command whose standard output is one document."""

    def print_result(self, result: ScanResult) -> None:
        """Print why a source could not be sent."""
        if result.job is None:
            say(f"{result.source}: {describe_error(result.error)}", to_stderr=True)

    def print_end(self, results: Sequence[ScanResult], seconds: float) -> None:
        """Print counts if there are several results."""
        _say_counts(results, seconds, is_waiting=False)


class CSVPrinter:
    """Prints a table with a heading, a row for each result, and the counts to standard error."""

    def __init__(self, *, is_waiting: bool = True) -> None:
        self._is_waiting = is_waiting
        self._has_heading = False

    def print_result(self, result: ScanResult) -> None:
        """Print a row, and the heading before the first one."""
        if not self._has_heading:
            say(format_csv_row(CSV_COLUMNS))
            self._has_heading = True
        say(format_csv_row(csv_values(result)))

    def print_end(self, results: Sequence[ScanResult], seconds: float) -> None:
        """Print counts to standard error if there are several results."""
        _say_counts(results, seconds, is_waiting=self._is_waiting)


def make_printer(form: Form, *, is_waiting: bool, is_stored: bool) -> Printer:
    """Make the printer for *form*; see ``TablePrinter`` for the other arguments."""
    if form == "json":
        return JSONPrinter(is_waiting=is_waiting)
    if form == "csv":
        return CSVPrinter(is_waiting=is_waiting)
    return TablePrinter(is_waiting=is_waiting, is_stored=is_stored)


def print_jobs_as_csv(jobs: Sequence[Job]) -> None:
    """Print a heading and a row for each job; its file is the name under which it was submitted."""
    say(format_csv_row(CSV_COLUMNS))
    for job in jobs:
        name = job.metadata.get("filename")
        say(format_csv_row(csv_values(ScanResult(name if isinstance(name, str) else "", job, None))))


def csv_values(result: ScanResult) -> tuple[Any, ...]:
    """Return the values of ``CSV_COLUMNS`` for a result; what is not known is empty."""
    job = result.job
    if job is None:
        problem = problem_document(result.error or RuntimeError())
        return (result.source, *[None] * (len(CSV_COLUMNS) - 3), problem["code"], problem["detail"])
    return (
        result.source,
        job.id,
        job.status,
        job.verdict,
        job.fake_score,
        job.peak_score,
        " ".join(job.reasons),
        job.model.name if job.model else None,
        job.model.version if job.model else None,
        job.created_at.isoformat(),
        None if job.finished_at is None else round((job.finished_at - job.created_at).total_seconds(), 3),
        job.error.code if job.error else None,
        job.error.detail if job.error else None,
    )


def format_csv_row(values: Sequence[Any]) -> str:
    """
    Return one line of CSV.

    A text that a spreadsheet would take for a formula begins with an apostrophe, since names of files may come from
    anybody.
    """
    shown = io.StringIO()
    csv.writer(shown, lineterminator="").writerow([_csv_cell(value) for value in values])
    return shown.getvalue()


def _csv_cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if len(text) > 1 and text.lstrip(" ").startswith(_FORMULA_STARTS) else text


def describe_error(error: Exception | None) -> str:
    """Return an error as one sentence for people."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return str(problem_document(error or RuntimeError())["detail"])


def problem_document(error: Exception) -> dict[str, Any]:
    """Return an error in the form that ``--json`` prints."""
    # The text of an OSError repeats the name of the file, which is printed already.
    why = error.strerror if isinstance(error, OSError) else None
    return {
        "code": getattr(error, "code", "client_error"),
        "detail": getattr(error, "detail", None) or why or str(error),
    }


def _say_counts(results: Sequence[ScanResult], seconds: float, *, is_waiting: bool) -> None:
    if len(results) > 1:
        say(describe_outcomes(results, seconds, submitted_only=not is_waiting), to_stderr=True)
