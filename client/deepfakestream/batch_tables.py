"""The list of batches: a table for a person, and CSV for a spreadsheet."""

from collections.abc import Sequence
from typing import Any, Final

from rich.table import Table

from deepfakestream.batches import Batch
from deepfakestream.printing import format_csv_row
from deepfakestream.tables import ID_WIDTH, MIN_FULL_WIDTH, MIN_SCORE_WIDTH, VERDICT_STYLES
from deepfakestream.terminal import safe_text, say

CSV_COLUMNS: Final = (
    *("batch_id", "created_at", "ended_at", "seconds"),
    *("total", "queued", "running", "succeeded", "failed", "cancelled", "refused", "erased"),
    *VERDICT_STYLES,
)
_NOT_JUDGED: Final = ("failed", "cancelled", "refused", "erased")
"""States of items that have ended without a verdict."""


def make_batches_table(batches: Sequence[Batch], width: int) -> Table:
    """
    Make a table with a line for each batch.

    Args:
        width: Columns of the terminal. Ids are never shortened, since commands need them whole; as in the table of
            jobs, a terminal of less than ``MIN_FULL_WIDTH`` columns gets fewer of the others.
    """
    is_full, has_times = width >= MIN_FULL_WIDTH, width >= MIN_SCORE_WIDTH
    zone = f" ({batches[0].created_at.astimezone():%Z})" if batches else ""
    table = Table() if is_full else Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("id", no_wrap=True, min_width=ID_WIDTH)
    if has_times:
        table.add_column(f"created{zone}", no_wrap=True)
    table.add_column("done", no_wrap=True)
    if is_full:
        table.add_column("took", no_wrap=True)
        table.add_column("outcomes", overflow="fold")
    for batch in batches:
        created = f"{batch.created_at.astimezone():{'%Y-%m-%d %H:%M:%S' if is_full else '%Y-%m-%d %H:%M'}}"
        done = f"{batch.counts.ended}/{batch.counts.total}"
        took = f"{batch.duration.total_seconds():.1f} s" if batch.is_final else "–"
        table.add_row(
            safe_text(batch.id),
            *((created,) if has_times else ()),
            done,
            *((took, safe_text(describe_counts(batch))) if is_full else ()),
        )
    return table


def describe_counts(batch: Batch) -> str:
    """Describe the items that have ended, such as ``2 fake, 1 real, 1 failed``; empty if none has."""
    # In a fixed order, with what a later release may add behind.
    verdicts = {**dict.fromkeys(VERDICT_STYLES, 0), **batch.verdicts}
    named = [(name.replace("_", " "), number) for name, number in verdicts.items()]
    named += [(name, getattr(batch.counts, name)) for name in _NOT_JUDGED]
    return ", ".join(f"{number} {name}" for name, number in named if number)


def print_batches_as_csv(batches: Sequence[Batch]) -> None:
    """Print a heading and a row for each batch."""
    say(format_csv_row(CSV_COLUMNS))
    for batch in batches:
        say(format_csv_row(_csv_values(batch)))


def _csv_values(batch: Batch) -> tuple[Any, ...]:
    ended, counts = batch.ended_at, batch.counts
    return (
        batch.id,
        batch.created_at.isoformat(),
        None if ended is None else ended.isoformat(),
        None if ended is None else round(batch.duration.total_seconds(), 3),
        *(counts.total, counts.queued, counts.running, counts.succeeded),
        *(getattr(counts, name) for name in _NOT_JUDGED),
        *(batch.verdicts.get(name, 0) for name in VERDICT_STYLES),
    )
