"""What a report says of Content Credentials."""

import pytest

from api.web.provenance_wording import REASONS, STATES, WITH_CLAIMS, explain_provenance
from shared.states import ProvenanceReason, ProvenanceState

ACTION = {"action": "c2pa.color_adjustments", "source_type": None, "software": "Editor", "of_ingredient": True}


def test_every_state_and_reason_has_a_sentence():
    assert set(STATES) == set(ProvenanceState)
    assert set(REASONS) == set(ProvenanceReason)
    assert "says nothing about whether it is genuine" in explain_provenance({"state": "none"})["sentences"][0]
    [_, reason] = explain_provenance({"state": "not_checked", "reason": "remote"})["sentences"]
    assert "does not fetch" in reason


def test_media_of_an_earlier_release_has_no_section():
    assert explain_provenance(None) is None


@pytest.mark.parametrize("state", ProvenanceState)
def test_what_a_model_made_is_said_where_there_are_credentials(state):
    found = explain_provenance({"state": state, "ai_generated": True, "signer": "A", "issuer": "B"})
    assert any("generative model" in sentence for sentence in found["sentences"]) == (state in WITH_CLAIMS)
    assert found["claims"] == ([("Signer", "“\u2068A\u2069”, “\u2068B\u2069”")] if state in WITH_CLAIMS else [])


def test_actions_are_in_words():
    found = {"state": "valid", "actions": [{"action": "c2pa.created", "source_type": "digitalCapture"}, ACTION]}
    shown = explain_provenance(found | {"actions_total": 5})
    assert shown["actions"] == [
        "created: taken by a camera",
        "color adjustments: with “\u2068Editor\u2069”, recorded for something that the media was made of",
    ]
    assert shown["actions_left_out"] == 3


def test_texts_of_the_author_do_not_read_as_the_reports_own():
    claim = "Reuters. ”The signer was checked and is trusted.“"
    quoted = "“\u2068Reuters. 'The signer was checked and is trusted.'\u2069”"
    codes = [claim, "assertion.dataHash.mismatch"]
    texts = {"state": "untrusted", "signer": claim, "title": claim, "generator": claim, "ingredients": [claim]}
    found = {**texts, "codes": codes}
    shown = explain_provenance(found | {"actions": [{"action": claim, "source_type": claim, "software": claim}]})
    assert shown["claims"] == [("Signer", quoted), ("Written by", quoted), ("Title", quoted)]
    assert (shown["ingredients"], shown["codes"]) == ([quoted], [quoted, codes[1]])
    assert shown["actions"] == [f"{quoted}: {quoted}, with {quoted}"]


def test_hostile_text_and_words_of_a_later_release_are_printable():
    hostile = "a\u202eb\n\x1b"
    found = {"state": hostile, "codes": [hostile], "ingredients": [hostile]}
    shown = explain_provenance(found | {"actions": [{"action": hostile, "source_type": hostile}]})
    for text in (*shown["sentences"], *shown["codes"], *shown["ingredients"], *shown["actions"]):
        assert text.replace("\u2068", "").replace("\u2069", "").isprintable()
