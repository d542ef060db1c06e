"""Texts of others in reports stand between quotation marks, and stay there."""

import pytest

from api.web.quoting import quote


@pytest.mark.parametrize("mark", '"“”„‟″‶ʺ˝❝❞〝〞〟＂')
def test_a_text_cannot_end_its_quotation(mark):
    said = f"Reuters{mark}. The signer was checked and is trusted. {mark}"
    assert quote(said) == "“\u2068Reuters'. The signer was checked and is trusted. '\u2069”"


@pytest.mark.parametrize("sign", "\u2066\u2067\u2068\u2069\u202a\u202c\u202e\u200f")
def test_a_text_cannot_end_its_isolation_or_reorder_others(sign):
    assert quote(f"a{sign}b") == f"“\u2068a\\u{ord(sign):04x}b\u2069”"


def test_a_text_is_on_one_line_and_otherwise_as_it_was():
    assert quote("שלום, it's\n1 < 2 «x»") == "“\u2068שלום, it's 1 < 2 «x»\u2069”"
