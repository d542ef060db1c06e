import numpy as np
import pytest

from tests.clips import astronaut, hopper
from worker.detection.mtcnn import MTCNN
from worker.detection.turning import DOUBT, find_position, find_standing, turn, turn_back


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
def test_faces_that_do_not_stand_upright_are_told_and_how_to_turn_them(mtcnn, portrait, quarters):
    picture = portrait()
    [faces] = find_standing(mtcnn, [picture], 0.9)
    assert faces[0].doubt < DOUBT
    turned = turn(picture, quarters)
    assert not any(stand.doubt < DOUBT for stand in find_standing(mtcnn, [turned], 0.9)[0])
    assert find_position(mtcnn, [turned], 0.9) == 4 - quarters


def test_where_there_is_no_face_nothing_is_turned(mtcnn):
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)
    assert find_standing(mtcnn, [noise, noise], 0.9) == [[], []]
    assert find_position(mtcnn, [noise], 0.9) == 0
