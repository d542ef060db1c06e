"""The page about inputs, for operators: what checkpoints are given, beside what they were validated on."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from flask import Response, render_template
from sqlalchemy.orm import Session

from api.auth import requires
from api.competence import (
    MIN_JOBS,
    PERIODS_DAYS,
    PROPERTY_NAMES,
    Comparison,
    References,
    bin_shares_of,
    compare_inputs,
    share,
)
from api.documentation import authenticated_problems
from api.jobs import blueprint
from api.schemas import InputsQuery
from api.services import current_services
from api.web.contents import read_styles
from api.web.pages import blueprint as web_blueprint
from api.web.pages import page_response
from shared.drift import CHANGED, STABLE
from shared.inputs import EDGES, InputKind, Property
from shared.jobs.inputs import last_days, today
from shared.states import Verdict

FULL: Final = 100.0
"""Width and height of a histogram: coordinates are percentages, so that it fits every width."""
GAP: Final = 1.0
"""Space at each side of a bin, in percent of the width."""
KINDS: Final = {InputKind.IMAGE: "images", InputKind.VIDEO: "videos", InputKind.STREAM: "live streams"}
MEASURES: Final = {
    Property.SIZE: "in pixels",
    Property.SHARPNESS: "as variance of the Laplacian",
    Property.LUMA: "as mean luma of 255",
}
LEVELS: Final = {
    "like": "like the validation set",
    "shifted": "shifted from the validation set",
    "unlike": "unlike the validation set",
}
VERDICTS: Final = {
    Verdict.REAL: "real",
    Verdict.INCONCLUSIVE: "inconclusive",
    Verdict.FAKE: "fake",
    Verdict.NOT_APPLICABLE: "not applicable: no face",
}
Periods = dict[int, dict[tuple[str, InputKind], Comparison]]
"""Length of a period in days → checkpoint and kind → its comparison."""


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of a histogram; lengths are in percent of the picture."""

    name: str
    now: float | None
    """Share of the inputs' faces, in [0, 1]; None without a face."""
    then: float | None
    """Share of the validation set's faces; None without a reference."""
    x: float
    width: float
    now_height: float
    then_height: float


@web_blueprint.get("/inputs")
def inputs() -> Response:
    """Show the page about inputs. Everything in it comes from ``get_inputs``, by the key that is typed in."""
    return page_response("inputs.html", periods=PERIODS_DAYS)


@blueprint.get(
    "/inputs.html",
    operation_id="getInputs",
    responses={
        "200": {"description": "One file.", "content": {"text/html": {"schema": {"type": "string"}}}},
        **authenticated_problems(422),
    },
)
@requires("admin")
def get_inputs(query: InputsQuery) -> Response:
    """
    Get what the whole service was given to judge, beside the validation sets of its checkpoints, as one HTML file.

    It has sums over the jobs of all owners, and names none of them. Of a checkpoint and kind of input with fewer than
    400 jobs in a period nothing is shown. A key needs the scope `admin`.
    """
    services = current_services()
    references = References(Path(services.settings.models.dir))
    with services.sessions.transaction() as session:
        values = describe_inputs(session, references, query.days)
    content = render_template("_inputs.html", **values, percent=percent, styles=read_styles())
    response = Response(content, mimetype="text/html")
    response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
    response.headers["Cache-Control"] = "private, no-store"
    return response


def describe_inputs(session: Session, references: References, days: int) -> dict[str, Any]:
    """
    Return the values of ``_inputs.html``.

    Args:
        days: Length of the period whose faces are drawn. The index and the band are given for ``PERIODS_DAYS``, too.
    """
    end = today(session)
    first, last = last_days(end, days)
    compared = {each: compare_inputs(session, references, end, each) for each in {days, *PERIODS_DAYS}}
    periods: Periods = {
        each: {(found.totals.model, found.totals.kind): found for found in compared[each]} for each in PERIODS_DAYS
    }
    return {
        "first": first,
        "last": last,
        "days": days,
        "parts": [_describe(found, periods) for found in compared[days]],
        "stable": STABLE,
        "changed": CHANGED,
        "min_jobs": MIN_JOBS,
        "property_names": [PROPERTY_NAMES[each].capitalize() for each in Property],
    }


def _describe(found: Comparison, periods: Periods) -> dict[str, Any]:
    totals, key = found.totals, (found.totals.model, found.totals.kind)
    part = {
        "name": f"{totals.model}, {KINDS[totals.kind]}",
        "anchor": f"{totals.model}-{totals.kind}".replace(".", "-"),
        "found": found,
        "summary": summarise(found),
        "periods": [_describe_period(days, compared.get(key)) for days, compared in periods.items()],
    }
    if found.is_of_few:
        return part
    return part | {
        "charts": [
            {
                "title": f"{PROPERTY_NAMES[each].capitalize()} of faces, {MEASURES[each]}",
                "anchor": each.value.replace("_", "-"),
                "bins": draw_bins(found, each),
                "words": explain_property(found, each),
                "level": found.unlikeness[each].level if found.unlikeness else "",
            }
            for each in Property
        ],
        "verdicts": [
            {
                "name": name,
                "now": percent(share(totals.verdicts[verdict], totals.jobs)),
                **{
                    label: percent(share(judged.verdicts.get(verdict, 0), judged.media))
                    for label, judged in found.judged.items()
                },
            }
            for verdict, name in VERDICTS.items()
        ],
        "band": {
            "now": percent(found.band_share),
            **{label: percent(share(judged.scores_in_band, judged.media)) for label, judged in found.judged.items()},
        },
    }


def _describe_period(days: int, found: Comparison | None) -> dict[str, Any]:
    name = "1 day" if days == 1 else f"{days} days"
    if found is None or found.is_of_few:
        return {"name": name, "jobs": f"below {MIN_JOBS}", "faces": "–", "indexes": ["–"] * len(Property), "band": "–"}
    return {
        "name": name,
        "jobs": found.totals.scores,
        "faces": found.totals.faces,
        "indexes": [f"{found.unlikeness[each].index:.2f}" if found.unlikeness else "–" for each in Property],
        "band": percent(found.band_share),
    }


def summarise(found: Comparison) -> str:
    """Return in one sentence whether a checkpoint is given what it was validated on."""
    if found.is_of_few:
        return f"Fewer than {MIN_JOBS} jobs with a scored face are too few; nothing is shown of them."
    if found.silence is not None:
        return f"Nothing is said of unlikeness: {found.silence}."
    odd = [each for each in Property if found.unlikeness[each].level == "unlike"]
    if not odd:
        return "The inputs are like the validation set in size, sharpness and brightness, or not far from it."
    words = " and ".join(found.unlikeness[each].direction for each in odd)
    return f"The inputs are unlike the validation set: faces are {words}. The rates on the model card may not hold."


def explain_property(found: Comparison, each: Property) -> str:
    """Return the index of a property with what it means; without one, what is drawn."""
    if not found.unlikeness:
        return "No index." if found.reference is not None else "No index; there is nothing to compare with."
    measured = found.unlikeness[each]
    how = "" if measured.level == "like" else f": faces are {measured.direction}"
    return f"Index {measured.index:.2f}, {LEVELS[measured.level]}{how}."


def draw_bins(found: Comparison, each: Property) -> list[Bin]:
    """Lay the histogram of a property out: the highest bar is as high as the picture."""
    now = bin_shares_of(found.totals.bins[each])
    then = None if found.reference is None else bin_shares_of(found.reference.counts(each))
    highest = max([*now, *(then or []), 1e-9])
    width = FULL / len(now)
    is_empty = not any(now)
    return [
        Bin(
            name=name,
            now=None if is_empty else now[number],
            then=None if then is None else then[number],
            x=round(number * width + GAP, 2),
            width=round(width - 2 * GAP, 2),
            now_height=round(FULL * now[number] / highest, 2),
            then_height=0.0 if then is None else round(FULL * then[number] / highest, 2),
        )
        for number, name in enumerate(_name_bins(EDGES[each]))
    ]


def _name_bins(edges: tuple[float, ...]) -> list[str]:
    middle = [f"{low:g}–{high:g}" for low, high in pairwise(edges)]
    return [f"below {edges[0]:g}", *middle, f"from {edges[-1]:g}"]


def percent(value: float | None) -> str:
    """Return a share in percent; a dash for None."""
    return "–" if value is None else f"{100 * value:.1f} %"
