"""Content Credentials: what is read in a file, by whom it was signed, and that nothing in it harms the worker."""

import io
import random
import socket
import sys

import pytest
from PIL import Image

from shared.documents import provenance as bounds
from shared.documents.provenance import ProvenanceDocument
from tests import credentials as samples
from tests.clips import make_clip
from worker.media import credentials, provenance
from worker.media.provenance import FORMATS, may_have_credentials, read_provenance

FORMS = {"jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "tiff": "TIFF", "avif": "AVIF"}
AI_ACTION = {"action": "c2pa.created", "source_type": "trainedAlgorithmicMedia", "software": "Example Model"}


@pytest.fixture(scope="module")
def signer():
    return samples.make_signer()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, signer):
    """A folder with the file ``root.pem``."""
    made = tmp_path_factory.mktemp("credentials")
    (made / "root.pem").write_text(signer.root_pem)
    return made


@pytest.fixture(scope="module")
def read(folder):
    """A function that reads bytes as a file; it trusts the signer's root unless told otherwise."""

    def run(data, container="jpeg", *, anchors="root.pem", timeout_s=20.0) -> ProvenanceDocument:
        path = folder / "media"
        path.write_bytes(data)
        file = folder / anchors if anchors else None
        return read_provenance(path, container, trust_anchors_file=file, timeout_s=timeout_s)

    return run


def picture(container="jpeg", colour="red"):
    file = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(file, FORMS[container])
    return file.getvalue()


@pytest.fixture(scope="module")
def signed(signer):
    assertion = samples.made_by(samples.AI_SOURCE, softwareAgent={"name": "Example Model"})
    return samples.sign(
        picture(), "image/jpeg", signer, manifest={"assertions": [assertion]}, ingredients={"part": picture()}
    )


@pytest.mark.parametrize("container", FORMS)
def test_a_picture_with_a_known_signer_is_valid_and_one_without_credentials_has_none(container, read, folder, signer):
    assert read(picture(container), container) == ProvenanceDocument(state="none")
    data = samples.sign(picture(container), FORMATS[container], signer)
    found = read(data, container)
    assert may_have_credentials(folder / "media", container)
    assert (found.state, found.codes, found.signer) == ("valid", [], "Example Camera")


def test_a_video_with_credentials_is_read(tmp_path, read, signer):
    clip = make_clip(tmp_path / "clip.mp4", seconds=1.0)
    assert read(clip.read_bytes(), "mp4").state == "none"
    data = samples.sign(clip.read_bytes(), "video/mp4", signer)
    assert read(data, "mp4").state == "valid"
    # A byte of the picture's data.
    at = data.index(b"mdat") + 100
    changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    assert read(changed, "mp4").codes == ["assertion.bmffHash.mismatch"]


def test_what_a_manifest_says_is_kept(signed, read):
    found = read(signed)
    assert found.to_json() == found.to_json() | {
        "state": "valid",
        "reason": None,
        "signer": "Example Camera",
        "issuer": "Example Camera Org",
        "signed_at": None,
        "time_stamped": False,
        "generator": "Example Editor 1.0",
        "title": "example",
        "ai_generated": True,
        "actions": [AI_ACTION | {"of_ingredient": False}],
        "actions_total": 1,
        "ingredients": ["part"],
        "ingredients_total": 1,
        "manifests": 1,
    }


def test_without_a_trust_anchor_the_signer_is_untrusted(signed, read, folder):
    (folder / "other.pem").write_text(samples.make_signer().root_pem)
    for anchors in (None, "other.pem"):
        found = read(signed, anchors=anchors)
        assert (found.state, found.codes) == ("untrusted", ["signingCredential.untrusted"])


def test_one_changed_byte_makes_it_invalid(signed, read):
    found = read(signed[:-30] + bytes([signed[-30] ^ 1]) + signed[-29:])
    assert (found.state, found.codes) == ("invalid", ["assertion.dataHash.mismatch"])


def test_a_certificate_that_had_expired_is_invalid(read, signer):
    data = samples.sign_with_expired(picture(), "image/jpeg", signer)
    found = read(data)
    assert found.state == "invalid"
    assert "signingCredential.expired" in found.codes


def test_what_a_model_made_is_found_in_an_ingredient_and_behind_many_actions(read, signer, signed):
    edits = {"label": "c2pa.actions", "data": {"actions": [{"action": "c2pa.edited"}] * 300}}
    opened = {"label": "c2pa.actions", "data": {"actions": [{"action": "c2pa.opened"}]}}
    data = samples.sign(
        picture(), "image/jpeg", signer, manifest={"assertions": [opened, edits]}, ingredients={"from a model": signed}
    )
    found = read(data)
    assert (found.manifests, found.ai_generated) == (2, True)
    assert found.actions[0].source_type == "trainedAlgorithmicMedia"
    assert found.actions[0].of_ingredient
    assert found.actions_total > len(found.actions) == bounds.MAX_ACTIONS


def test_a_manifest_that_no_signature_covers_says_nothing(read, signer):
    """Anybody can add one to a file that stays valid."""
    camera = samples.sign(picture("png"), "image/png", signer)
    claims = {"title": "e", "claim_generator_info": [{"name": "E"}], "assertions": [samples.made_by(samples.AI_SOURCE)]}
    other = samples.sign(picture("png", "blue"), "image/png", samples.make_signer("Other"), manifest=claims)
    found = read(samples.add_unbound_manifest(camera, other), "png")
    assert (found.state, found.codes, found.signer) == ("valid", [], "Example Camera")
    assert (found.ai_generated, found.manifests, found.actions_total) == (False, 1, 1)


def test_manifests_of_ingredients_of_ingredients_count(read, signer, signed):
    middle = samples.sign(picture(colour="blue"), "image/jpeg", signer, ingredients={"from a model": signed})
    found = read(samples.sign(picture(colour="green"), "image/jpeg", signer, ingredients={"edited": middle}))
    assert (found.manifests, found.ai_generated) == (3, True)


def test_an_ingredient_that_did_not_match_its_manifest_says_nothing(read, signer, signed):
    """Anybody can attach a model's manifest to a picture, for others to use."""
    attached = signed[:-30] + bytes([signed[-30] ^ 1]) + signed[-29:]
    used = samples.sign(picture(colour="blue"), "image/jpeg", signer, ingredients={"attached": attached})
    again = samples.sign(picture(colour="green"), "image/jpeg", signer, ingredients={"used": used})
    for data, manifests in ((used, 1), (again, 2)):
        found = read(data)
        assert (found.state, found.codes, found.ingredients_total) == ("valid", [], 1)
        assert (found.ai_generated, found.manifests, found.actions_total) == (False, manifests, manifests)


def test_a_manifest_that_was_changed_after_its_use_stays_out_when_it_is_used_again(read, signer, signed):
    used = samples.sign(picture(colour="blue"), "image/jpeg", signer, ingredients={"from a model": signed})
    changed = used.replace(b"Example Model", b"Another Model")
    assert read(changed).state == "invalid"
    found = read(samples.sign(picture(colour="green"), "image/jpeg", signer, ingredients={"changed": changed}))
    assert (found.state, found.ai_generated, found.manifests) == ("valid", False, 2)


def test_an_ingredient_of_an_unknown_signer_counts_only_below_another(read, signer):
    model = {"assertions": [samples.made_by(samples.AI_SOURCE)]}
    unknown = samples.sign(picture(), "image/jpeg", samples.make_signer("Anybody"), manifest=model)
    data = samples.sign(picture(colour="blue"), "image/jpeg", signer, ingredients={"unknown": unknown})
    for anchors, state, is_counted in (("root.pem", "valid", False), (None, "untrusted", True)):
        found = read(data, anchors=anchors)
        assert (found.state, found.ai_generated, found.manifests) == (state, is_counted, 1 + is_counted)


def test_only_a_trusted_authority_makes_a_time_stamp():
    store = {
        "manifests": {"a": {"signature_info": {"time": "2015-01-01T00:00:00Z"}}},
        "active_manifest": "a",
        "validation_state": "Trusted",
    }
    for codes, is_stamped in ((["timeStamp.validated"], False), (["timeStamp.validated", "timeStamp.trusted"], True)):
        results = {"activeManifest": {"success": [{"code": code} for code in codes]}}
        assert credentials.describe(store | {"validation_results": results})["time_stamped"] is is_stamped


def test_texts_of_characters_with_long_escapes_are_read(read, signer):
    title = "\N{GRINNING FACE}" * 200
    actions = [{"action": title, "softwareAgent": {"name": title}, "digitalSourceType": title} for _ in range(20)]
    manifest = {"title": title, "assertions": [{"label": "c2pa.actions", "data": {"actions": actions}}]}
    found = read(samples.sign(picture(), "image/jpeg", signer, manifest=manifest))
    assert (found.title, found.actions_total) == (title, 20)


def test_hostile_texts_are_kept_within_bounds(read, signer):
    # The library signs manifests of up to a megabyte.
    hostile = "<script>\u202e\x1b[31m" + "x" * 500_000
    actions = [{"action": hostile[:5000], "softwareAgent": {"name": hostile[:5000]}}] * 30
    manifest = {
        "title": hostile,
        "claim_generator_info": [{"name": hostile[:5000]}],
        "assertions": [{"label": "c2pa.actions", "data": {"actions": actions}}],
    }
    found = read(samples.sign(picture(), "image/jpeg", signer, manifest=manifest))
    assert found.title == hostile[: bounds.MAX_TEXT]
    assert found.actions[0].software == hostile[: bounds.MAX_TEXT]
    assert (len(found.actions), found.actions_total) == (bounds.MAX_ACTIONS, 30)
    assert len(found.to_text()) < 50_000


def test_ten_thousand_assertions_have_an_answer(read, signer):
    assertions = [{"label": f"a.{number}", "data": {}} for number in range(10_000)]
    data = samples.sign(picture(), "image/jpeg", signer, manifest={"assertions": assertions})
    # The library takes some ten seconds for them, so that the limit of time ends it.
    found = read(data, timeout_s=1.0)
    assert found.state in ("invalid", "unreadable")
    assert len(found.codes) <= bounds.MAX_CODES


def test_a_reference_to_a_manifest_elsewhere_is_not_followed(read, folder, signer):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/manifest.c2pa"
        server.settimeout(0.1)
        for embed, expected in ((False, ("not_checked", "remote")), (True, ("valid", None))):
            data = samples.sign(picture(), "image/jpeg", signer, remote_url=url, embed=embed)
            found = read(data)
            assert (found.state, found.reason) == expected
            # Not by the library's settings alone either, outside the sandbox without a network.
            request = {"format": "image/jpeg", "trust_anchors_file": None}
            assert credentials.main(str(folder / "media"), request)["state"] in ("not_checked", "untrusted")
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize("container", ["jpeg", "png", "webp"])
def test_a_reference_alone_is_found_by_the_search(container, read, signer):
    data = samples.sign(picture(container), FORMATS[container], signer, remote_url="http://127.0.0.1:9/", embed=False)
    assert read(data, container).reason == "remote"


def test_no_damage_to_a_manifest_harms_the_worker(signed, read):
    chance = random.Random(1)
    begin, end = signed.index(b"\xff\xeb"), len(signed)
    states = set()
    for number in range(60):
        data = bytearray(signed)
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(begin, end)] = chance.randrange(256)
        if number % 4 == 0:
            del data[chance.randrange(begin, end) :]
        states.add(read(bytes(data)).state)
    assert states <= {"none", "invalid", "unreadable", "untrusted", "valid"}
    assert {"invalid", "unreadable"} <= states


@pytest.mark.parametrize(
    ("script", "state", "reason"),
    [
        ("import os; os.abort()", "unreadable", "crashed"),
        ("while True: pass", "unreadable", "timed_out"),
        ('print(\'{"state": "valid", "title": "\' + \'x\' * 5000 + \'"}\')', "unreadable", "crashed"),
        ("print('x' * 10_000_000)", "unreadable", "crashed"),
        ('print(\'{"state": "best"}\')', "unreadable", "crashed"),
        ("bytearray(64 * 1024**3)", "unreadable", "crashed"),
        ("open('/tmp/written', 'w').write('x')", "unreadable", "crashed"),
    ],
    ids=["crash", "endless", "long-text", "flood", "unknown-state", "memory", "write"],
)
def test_a_child_that_fails_or_lies_is_a_state(script, state, reason, signed, read, tmp_path, monkeypatch):
    (tmp_path / "child.py").write_text(script)
    monkeypatch.setattr(provenance, "SCRIPT", tmp_path / "child.py")
    found = read(signed, timeout_s=0.5 if reason == "timed_out" else 20.0)
    assert found == ProvenanceDocument(state=state, reason=reason)


def test_what_cannot_be_checked_says_why(signed, read, folder, monkeypatch):
    assert read(signed, "matroska").to_json()["reason"] == "format"
    (folder / "bad.pem").write_text("not a certificate")
    assert read(signed, anchors="bad.pem").to_json()["reason"] == "trust_anchors"
    assert read(signed[:2000]).to_json()["reason"] == "damaged"
    monkeypatch.setattr(provenance, "find_spec", lambda _name: None)
    assert read(signed).to_json()["reason"] == "library"
    monkeypatch.setitem(sys.modules, "c2pa", None)
    assert credentials.main("file", {}) == {"state": "not_checked", "reason": "library"}


def test_child_and_document_have_the_same_bounds():
    for name in ("MAX_TEXT", "MAX_CODES", "MAX_ACTIONS", "MAX_INGREDIENTS"):
        assert getattr(credentials, name) == getattr(bounds, name)
