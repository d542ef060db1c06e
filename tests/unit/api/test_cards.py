"""Model cards for readers of a report, which an operator supplies, and which may be hostile."""

import re
from html.parser import HTMLParser

import pytest

from api.web.cards import FIRST_LEVEL, MAX_CARD_CHARACTERS, describe_checkpoint, render_card
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR, find_manifest

TAGS = {
    *("a", "blockquote", "br", "code", "div", "em", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "strong"),
    *("table", "tbody", "td", "th", "thead", "tr", "ul"),
}
ATTRIBUTES = {"href", "title", "rel", "class", "scope", "tabindex", "role", "aria-label", "start"}
HOSTILE = {
    "script": "<script>alert(1)</script>",
    "handler": "<img src=x onerror=alert(1)> <a href='javascript:alert(1)'>x</a>",
    "comment": "<!-- </details> --></div></details><style>*{display:none}</style>",
    "script link": "[x](javascript:alert(1)) [y](JaVaScRiPt:alert(1)) [z](&#106;avascript:a) <javascript:a>",
    "data link": "[x](data:text/html;base64,PHNjcmlwdD4=) [y](file:///etc/passwd) [z](//evil.example) [w](vbscript:x)",
    "image": "![x](https://evil.example/seen.png)",
    "attribute": '[x](https://a.example/"onclick="alert(1) "a\\" onclick="alert(1)")',
    "fence": '```" onclick="alert(1)\nx\n```',
    "reference": "[a]: https://a.example/ '\" onload=\"x'\n[a]",
    "table": '| <table> | x |\n| --: | :-: |\n| </table> | <td style="x"> |',
    "template": "{{ 271 * 331 }} {% raw %}",
}


class Reader(HTMLParser):
    """Collects the tags and attributes of a page, as a browser would see them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(str(page))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_card_has_no_html_of_its_own(text):
    seen = Reader(render_card(text))
    assert set(seen.tags) <= TAGS
    assert {name for name, _ in seen.attributes} <= ATTRIBUTES
    assert all(re.match("https?://", value) for name, value in seen.attributes if name == "href")
    assert "89701" not in seen.text


def test_a_card_of_ours_is_a_page_with_tables_and_nothing_that_the_policy_forbids():
    card = (PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT / "MODEL_CARD.md").read_text()
    seen = Reader(render_card(card))
    assert {"h3", "h4", "table", "strong", "li"} <= set(seen.tags) <= TAGS
    assert "style" not in dict(seen.attributes)
    assert "Intended use" in seen.text
    assert seen.tags.count("div") == seen.tags.count("table") > 5


@pytest.mark.parametrize("card", ["# a\n## b\n### c\n# d", "### a\n###### b\n# c\n###### d", "a\n===\nb\n---\n"])
def test_headings_are_below_those_of_the_report_and_leave_no_level_out(card):
    levels = [int(tag[1:]) for tag in Reader(render_card(card)).tags if re.fullmatch(r"h\d", tag)]
    assert levels
    assert all(FIRST_LEVEL <= level <= before + 1 for before, level in zip([2, *levels], levels, strict=False))


def test_invisible_characters_are_shown_and_a_long_card_is_cut():
    assert "\\u202e" in render_card("# a\u202eb")
    assert "\u202e" not in render_card("# a\u202eb")
    assert len(render_card("x" * 10 * MAX_CARD_CHARACTERS)) < 2 * MAX_CARD_CHARACTERS


def test_the_main_figures_are_those_of_the_manifest():
    manifest = find_manifest(PACKAGED_MODELS_DIR, DEFAULT_CHECKPOINT)
    rows = describe_checkpoint(manifest)
    values = dict(rows)
    assert f"ROC-AUC {manifest.metrics['validation_roc_auc']:.3f}" in values["Measured"]
    assert f"dfdc {manifest.metrics['validation_dfdc_roc_auc']:.3f}" in values["ROC-AUC by data set"]
    assert f"{100 * manifest.calibration.threshold:.1f}" in values["Limits for one face"]
    assert [value for _, value in rows[: len(manifest.training_data)]] == [
        line[:300] for line in manifest.training_data
    ]
    assert describe_checkpoint(manifest.model_copy(update={"trained": False})) == []


def test_hostile_manifests_are_bounded_and_printable():
    manifest = find_manifest(PACKAGED_MODELS_DIR, DEFAULT_CHECKPOINT).model_copy(
        update={
            "training_data": ["\u202e" + "x" * 10_000] * 1000,
            "metrics": {f"validation_{'y' * 10_000}{number}_roc_auc": 0.5 for number in range(1000)},
            "licence": "a\nb\0",
        }
    )
    rows = describe_checkpoint(manifest)
    assert len(rows) < 20
    assert all(len(value) < 5000 and value.isprintable() for _, value in rows)
    assert ("", "and 988 more data sets") in rows
