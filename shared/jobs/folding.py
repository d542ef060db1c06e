"""
Folding: rows that jobs add to a table of sums by day are replaced by one row for each day and key.

A counter that all jobs changed would make them wait for each other, so each adds a row in the transaction that ends it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Date, and_, delete, func, insert, literal, select
from sqlalchemy.orm import Session

from shared.models import InputCount, Usage

TODAY: Final = func.timezone("UTC", func.now()).cast(Date())
"""The day of the database, in UTC, by which rows are counted."""


def fold_rows(
    session: Session,
    table: type[InputCount] | type[Usage],
    keys: Sequence[str],
    sums: Mapping[str, Callable[[Any], Any]],
) -> None:
    """
    Replace the rows of each day and key by one, those of today included, of which there are most.

    Jobs only add rows, so that folding waits for none of them, and finds theirs the next time. Groups and the rows of
    each are locked in order, so that two sessions that fold at once wait for each other instead of ending in a
    deadlock.

    Args:
        table: A table with the columns ``id`` and ``day``.
        keys: The columns of which a row is kept for each combination; ``day`` is added.
        sums: All other columns, each with the sum over rows.
    """
    columns = table.__table__.columns
    names = ["day", *keys]
    # Groups of several rows only, so that most days are left alone.
    group_columns = [columns[name] for name in names]
    several = select(*group_columns).group_by(*group_columns).having(func.count() > 1).order_by(*group_columns)
    for values in session.execute(several).all():
        named = dict(zip(names, values, strict=True))
        chosen = and_(*(columns[name] == value for name, value in named.items()))
        locked = select(columns["id"]).where(chosen).order_by(columns["id"]).with_for_update().cte("locked")
        gone = delete(table).where(columns["id"].in_(select(locked.c.id))).returning(*columns).cte("gone")
        # The id of one of the rows is as good as a new one. Postgres has no minimum of them.
        new_id = func.array_agg(gone.c.id)[1]
        group = [literal(value, columns[name].type) for name, value in named.items()]
        totals = [add(gone.c[name]) for name, add in sums.items()]
        # Another session may have folded them meanwhile.
        folded = select(new_id, *group, *totals).having(func.count() > 0)
        session.execute(insert(table).from_select(["id", *names, *sums], folded))
