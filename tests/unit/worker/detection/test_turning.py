import numpy as np
import pytest

from tests.clips import astronaut, hopper
from worker.detection.mtcnn import MTCNN
from worker.detection.turning import Poser, find_standing, turn, turn_back


@pytest.fixture(scope="module")
def mtcnn():
    return MTCNN(min_face_px=40)


@pytest.mark.parametrize("quarters", range(4))
def test_a_place_in_a_turned_picture_is_found_again(mtcnn, quarters):
    picture = astronaut()[:400, :300]
    [[upright]] = find_standing(mtcnn, [picture], 0.9)
    turned = turn(picture, quarters)
    [[found]] = find_standing(mtcnn, [turn(turned, (4 - quarters) % 4)], 0.9)
    height, width = turned.shape[:2]
    face = turn_back(found.face, (4 - quarters) % 4, width, height)
    left, top, right, bottom = (round(edge) for edge in face.box_px)
    cut = turned[top:bottom, left:right]
    x0, y0, x1, y1 = (round(edge) for edge in upright.face.box_px)
    assert cut.shape[:2] == turn(picture[y0:y1, x0:x1], quarters).shape[:2]
    assert np.abs(cut.astype(int) - turn(picture[y0:y1, x0:x1], quarters)).mean() < 1.0
    eye, mouth = np.array(face.landmarks_px)[[0, 3]]
    towards = turn_back_direction(quarters)
    assert (mouth - eye) @ towards > 0


def turn_back_direction(quarters):
    """Where down is in a picture that was turned counter-clockwise."""
    return np.array([(0, 1), (1, 0), (0, -1), (-1, 0)][quarters])


@pytest.mark.parametrize("portrait", [astronaut, hopper])
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_faces_that_do_not_stand_upright_are_told_and_turned(mtcnn, portrait, quarters):
    picture = portrait()
    [upright] = Poser(mtcnn, 0.9).pose([picture])
    assert (upright.quarters, upright.has_upright) == (0, True)
    turned = turn(picture, quarters)
    assert not any(stand.is_upright for stand in find_standing(mtcnn, [turned], 0.9)[0])
    [posed] = Poser(mtcnn, 0.9).pose([turned])
    assert (posed.quarters, posed.has_upright) == (4 - quarters, True)
    assert (posed.picture == picture).all()


def test_the_position_is_found_again_after_frames_without_a_face_and_after_a_cut(mtcnn):
    picture = np.ascontiguousarray(hopper()[:260, :260])
    dark, turned = np.zeros_like(picture), turn(picture, 2)
    poser = Poser(mtcnn, 0.9)
    quarters = [
        [one.quarters for one in poser.pose(chunk)]
        for chunk in ([dark] * 4, [turned] * 4, [turned, picture, turned], [picture] * 2)
    ]
    assert quarters == [[0] * 4, [2] * 4, [2, 0, 2], [0] * 2]


def test_where_there_is_no_face_nothing_is_turned_and_little_is_looked_at(mtcnn, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    looked_at = []
    detect = mtcnn.detect
    monkeypatch.setattr(mtcnn, "detect", lambda pictures: looked_at.append(len(pictures)) or detect(pictures))
    poser = Poser(mtcnn, 0.9)
    for _ in range(8):
        assert [one.quarters for one in poser.pose([noise])] == [0]
    assert sum(looked_at) == 8 + 2 * 3
