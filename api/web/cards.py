"""
Model cards for readers of a report: the whole card as HTML, and its main figures as rows of a table.

An operator supplies cards and manifests with a checkpoint, and their text is as untrusted as any other.
"""

import re
from collections.abc import Sequence
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from api.web.wording import make_printable, points
from shared.manifests import Manifest

MAX_CARD_CHARACTERS: Final = 100_000
FIRST_LEVEL: Final = 3
"""Level of a card's highest heading: the report's own heading above it is of the second."""
LOWEST_LEVEL: Final = 6
LINK_SCHEMES: Final = ("https://", "http://")
MAX_DATA_SETS: Final = 12
MAX_LINE: Final = 300
SET_METRIC: Final = re.compile(r"validation_(.+)_roc_auc")
FIGURES: Final = {
    "ROC-AUC": "validation_roc_auc",
    "F1": "validation_f1",
    "recall": "validation_recall",
    "false-positive rate": "validation_false_positive_rate",
    "equal error rate": "validation_equal_error_rate",
    "calibration error": "validation_expected_calibration_error",
}
"""Name → metric of the manifest."""


class _Parser(MarkdownIt):
    """A parser of Markdown without HTML and images, whose links lead to web addresses."""

    def __init__(self) -> None:
        super().__init__("commonmark", {"html": False})
        self.enable("table").disable("image")

    def validateLink(self, url: str) -> bool:  # noqa: N802 - the name is the library's
        return url.lower().startswith(LINK_SCHEMES)


def render_card(text: str) -> Markup:
    """
    Return a model card, in Markdown, as HTML for the report.

    HTML in it is shown as text, images are shown as links, links that do not lead to web addresses as text, and
    invisible characters and those that reorder others as escapes. A card of more than ``MAX_CARD_CHARACTERS`` is cut.
    """
    lines = text[:MAX_CARD_CHARACTERS].expandtabs(4).splitlines()
    parser = _Parser()
    tokens = parser.parse("\n".join(map(make_printable, lines)))
    _move_headings(tokens)
    _prepare(tokens)
    rendered: str = parser.renderer.render(tokens, parser.options, {})
    # Wide tables scroll by themselves on narrow screens, with the keyboard as well.
    opening = '<div class="scrolls" tabindex="0" role="group" aria-label="Table of the model card"><table>'
    # Every tag in it is of the renderer: text and attributes are escaped.
    return Markup(rendered.replace("<table>", opening).replace("</table>", "</table></div>"))  # noqa: S704


def describe_checkpoint(manifest: Manifest) -> list[tuple[str, str]]:
    """Return the main figures of a model card, as label and value; none if the checkpoint was not trained."""
    metrics = manifest.metrics
    if not manifest.trained:
        return []
    trained_on = [make_printable(line)[:MAX_LINE] for line in manifest.training_data[:MAX_DATA_SETS]]
    if len(manifest.training_data) > MAX_DATA_SETS:
        trained_on.append(f"and {len(manifest.training_data) - MAX_DATA_SETS} more data sets")
    rows = [("" if number else "Trained and tested with", line) for number, line in enumerate(trained_on)]
    measured = [f"{name} {metrics[key]:.3f}" for name, key in FIGURES.items() if key in metrics]
    if measured:
        rows.append(
            (
                "Measured",
                f"On media that it was not trained on, and by which its limits were chosen: {', '.join(measured)}.",
            )
        )
    sets = [(found[1], value) for name, value in metrics.items() if (found := SET_METRIC.fullmatch(name))]
    if sets:
        named = [f"{make_printable(name)[:MAX_LINE]} {value:.3f}" for name, value in sets[:MAX_DATA_SETS]]
        more = f" and {len(sets) - MAX_DATA_SETS} more" if len(sets) > MAX_DATA_SETS else ""
        rows.append(("ROC-AUC by data set", f"{', '.join(named)}{more}. 0.5 is chance, and 1 is perfect."))
    low, high = manifest.calibration.uncertainty_band[0], manifest.calibration.threshold
    limits = f"Fake from {points(high)} on, real below {points(low)}; those for all faces of a file are others."
    rows.append(("Limits for one face", limits))
    rows.append(("Licence", make_printable(manifest.licence)[:MAX_LINE]))
    return rows


def _move_headings(tokens: Sequence[Token]) -> None:
    """Bring headings below those of the report, without levels that are left out."""
    above, level = FIRST_LEVEL - 1, FIRST_LEVEL
    highest = min((int(token.tag[1:]) for token in tokens if token.type == "heading_open"), default=1)
    for token in tokens:
        if token.type == "heading_open":
            wanted = int(token.tag[1:]) - highest + FIRST_LEVEL
            level = above = min(LOWEST_LEVEL, wanted, above + 1)
        if token.type in {"heading_open", "heading_close"}:
            token.tag = f"h{level}"


def _prepare(tokens: Sequence[Token]) -> None:
    for token in tokens:
        # The renderer aligns cells by a style, which the policy of the page forbids.
        token.attrs.pop("style", None)
        if token.type == "th_open":
            token.attrSet("scope", "col")
        for child in token.children or ():
            if child.type == "link_open":
                child.attrSet("rel", "noopener noreferrer nofollow")
