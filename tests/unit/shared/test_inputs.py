import json
import shutil

import pytest

from shared.errors import ModelError
from shared.inputs import EDGES, INPUT_BINS, MAX_FACES_OF_JOB, Property, count_faces
from shared.manifests import PACKAGED_MODELS_DIR, find_manifest, list_manifests
from shared.references import REFERENCE_FILE, read_reference

SHIPPED = list(list_manifests(PACKAGED_MODELS_DIR))


def face(size_px=100.0, sharpness=100.0, luma=100.0, problem=None):
    score = 0.5 if problem is None else None
    return {"size_px": size_px, "sharpness": sharpness, "luma": luma, "problem": problem, "fake_score": score}


def test_every_property_has_bins_in_order():
    for edges in EDGES.values():
        assert len(edges) == INPUT_BINS - 1
        assert list(edges) == sorted(set(edges))


def test_a_bin_contains_its_lower_edge_and_the_outer_ones_are_open():
    sizes = count_faces([face(size_px=size) for size in (0.0, 59.9, 60.0, 79.9, 80.0, 319.9, 320.0, 9000.0)]).bins
    assert sizes[Property.SIZE] == (2, 2, 1, 0, 0, 0, 0, 0, 1, 2)
    assert sizes[Property.LUMA] == (0, 0, 0, 0, 0, 0, 8, 0, 0, 0)


def test_faces_without_a_score_are_counted_by_their_problem_alone():
    faces = [face(), face(problem="face_too_small"), face(problem="face_turned"), face(problem="of a later release")]
    found = count_faces(faces)
    assert (found.faces, sum(found.bins[Property.SIZE])) == (1, 1)
    assert found.problems == {"face_too_small": 1, "face_too_blurred": 0, "face_turned": 1}


def test_faces_that_an_earlier_release_found_have_no_luma():
    found = count_faces([face(luma=None), {key: value for key, value in face().items() if key != "luma"}])
    assert (found.faces, sum(found.bins[Property.SHARPNESS]), sum(found.bins[Property.LUMA])) == (2, 2, 0)


def test_a_long_recording_weighs_no_more_than_a_bound():
    found = count_faces([face(size_px=50.0)] * 900 + [face(size_px=500.0)] * 300)
    assert found.faces == 1200
    assert found.bins[Property.SIZE] == (75, 0, 0, 0, 0, 0, 0, 0, 0, 25)
    assert sum(found.bins[Property.LUMA]) == pytest.approx(MAX_FACES_OF_JOB)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_reference_is_of_the_shipped_weights_and_adds_up(name):
    found = read_reference(PACKAGED_MODELS_DIR, find_manifest(PACKAGED_MODELS_DIR, name))
    media = sum(part.media for part in found.kinds.values())
    assert media == sum(judged.media for judged in found.judged.values())
    for judged in found.judged.values():
        assert judged.media == sum(judged.verdicts.values())
        assert judged.scores_in_band <= judged.media
    for part in found.kinds.values():
        totals = [sum(part.counts(each)) for each in Property]
        assert totals == pytest.approx([totals[0]] * len(totals), abs=1.0)
        assert part.media <= totals[0] + 1e-6 <= part.faces + 1.0


def test_a_reference_that_does_not_belong_to_the_checkpoint_is_refused_with_the_reason(tmp_path):
    shutil.copytree(PACKAGED_MODELS_DIR / SHIPPED[0], tmp_path / SHIPPED[0], ignore=shutil.ignore_patterns("weights*"))
    manifest, file = find_manifest(tmp_path, SHIPPED[0]), tmp_path / SHIPPED[0] / REFERENCE_FILE
    written = json.loads(file.read_text())
    assert read_reference(tmp_path, manifest).bins == written["bins"]
    for change, said in (
        ({"weights_sha256": "0" * 64}, "made with other weights"),
        ({"bins": 0}, "the bins of another release"),
        ({"kinds": {"image": {"media": -1}}}, "cannot be read"),
    ):
        file.write_text(json.dumps(written | change))
        with pytest.raises(ModelError, match=said):
            read_reference(tmp_path, manifest)
    file.write_text(json.dumps(written | {"of_a_later_release": 1}))
    read_reference(tmp_path, manifest)
    file.write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        read_reference(tmp_path, manifest)
    file.unlink()
    with pytest.raises(ModelError, match="has no reference"):
        read_reference(tmp_path, manifest)
