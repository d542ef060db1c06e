import numpy as np
import pytest

from tests.clips import astronaut, hopper
from worker.detection.mtcnn import MTCNN
from worker.detection.orientation import OrientationTracker, detect_with_orientation, turn, turn_back


@pytest.fixture(scope="module")
def mtcnn():
    return MTCNN(min_face_px=40)


@pytest.mark.parametrize("quarter_turns", range(4))
def test_positions_in_a_turned_picture_map_back(mtcnn, quarter_turns):
    picture = astronaut()[:400, :300]
    [[upright]] = detect_with_orientation(mtcnn, [picture], 0.9)
    turned = turn(picture, quarter_turns)
    [[found]] = detect_with_orientation(mtcnn, [turn(turned, (4 - quarter_turns) % 4)], 0.9)
    height, width = turned.shape[:2]
    face = turn_back(found.face, (4 - quarter_turns) % 4, width, height)
    left, top, right, bottom = (round(edge) for edge in face.box_px)
    cut = turned[top:bottom, left:right]
    x0, y0, x1, y1 = (round(edge) for edge in upright.face.box_px)
    assert cut.shape[:2] == turn(picture[y0:y1, x0:x1], quarter_turns).shape[:2]
    assert np.abs(cut.astype(int) - turn(picture[y0:y1, x0:x1], quarter_turns)).mean() < 1.0
    eye, mouth = np.array(face.landmarks_px)[[0, 3]]
    towards = turn_back_direction(quarter_turns)
    assert (mouth - eye) @ towards > 0


def turn_back_direction(quarter_turns):
    """Return the direction of down in a picture that was turned counter-clockwise."""
    return np.array([(0, 1), (1, 0), (0, -1), (-1, 0)][quarter_turns])


@pytest.mark.parametrize("portrait", [astronaut, hopper])
@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_turned_faces_are_recognised_and_turned_upright(mtcnn, portrait, quarter_turns):
    picture = portrait()
    [upright] = OrientationTracker(mtcnn, 0.9).detect([picture])
    assert (upright.quarter_turns, upright.has_upright) == (0, True)
    turned = turn(picture, quarter_turns)
    assert not any(stand.is_upright for stand in detect_with_orientation(mtcnn, [turned], 0.9)[0])
    [oriented] = OrientationTracker(mtcnn, 0.9).detect([turned])
    assert (oriented.quarter_turns, oriented.has_upright) == (4 - quarter_turns, True)
    assert (oriented.picture == picture).all()


def test_the_orientation_is_found_again_after_empty_frames_and_a_cut(mtcnn):
    picture = np.ascontiguousarray(hopper()[:260, :260])
    dark, turned = np.zeros_like(picture), turn(picture, 2)
    tracker = OrientationTracker(mtcnn, 0.9)
    quarter_turns = [
        [one.quarter_turns for one in tracker.detect(chunk)]
        for chunk in ([dark] * 4, [turned] * 4, [turned, picture, turned], [picture] * 2)
    ]
    assert quarter_turns == [[0] * 4, [2] * 4, [2, 0, 2], [0] * 2]


def test_frames_without_a_face_are_not_turned_and_rarely_probed(mtcnn, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    looked_at = []
    detect = mtcnn.detect
    monkeypatch.setattr(mtcnn, "detect", lambda pictures: looked_at.append(len(pictures)) or detect(pictures))
    tracker = OrientationTracker(mtcnn, 0.9)
    for _ in range(8):
        assert [one.quarter_turns for one in tracker.detect([noise])] == [0]
    assert sum(looked_at) == 8 + 2 * 3
