"""Pictures of the newest faces of a segment."""

import cv2
import numpy as np

from worker.pipeline.newest import MAX_HELD, MAX_PEOPLE, SIDE_PX, NewestFaces


def plain(value):
    return np.full((224, 224, 3), (value, 0, 0), np.uint8)


def red_of(jpeg):
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (SIDE_PX, SIDE_PX, 3)
    return int(picture[..., 2].mean())


def test_the_newest_face_of_each_person_is_chosen():
    faces = NewestFaces()
    for time_s, value in [(0.0, 40), (0.0, 80), (1.0, 120), (2.0, 200)]:
        faces.add(time_s, plain(value))
    first, second = faces.choose([0, 1, 0, 0])
    assert (first.person, first.time_s, second.person, second.time_s) == (0, 2.0, 1, 0.0)
    assert abs(red_of(first.jpeg) - 200) < 5
    assert abs(red_of(second.jpeg) - 80) < 5


def test_a_crowd_is_bounded():
    faces = NewestFaces()
    for number in range(MAX_HELD + 10):
        faces.add(float(number), plain(1))
    people = [0] * 10 + [1] * (MAX_HELD - 50) + list(range(2, 52))
    assert [face.person for face in faces.choose(people)] == list(range(1, MAX_PEOPLE)), "the first is too old"
