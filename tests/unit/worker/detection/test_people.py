import numpy as np

from tests.clips import astronaut, hopper
from worker.detection.people import Sighting, compute_appearance, group_into_people

ONE, OTHER = astronaut()[20:220, 60:260], hopper()[20:220, 40:240]


def at(time_s, x, crop, side=100.0, y=50.0):
    generator = np.random.default_rng(int(time_s * 1000) + int(x))
    noisy = np.clip(crop + generator.normal(0, 6, crop.shape), 0, 255).astype(np.uint8)
    return Sighting(time_s, (x, y, x + side, y + side), compute_appearance(noisy))


def test_a_moving_person_stays_one_person():
    sightings = [at(number / 2, 40.0 * number, ONE) for number in range(8)]
    assert group_into_people(sightings).numbers == [0] * 8


def test_two_people_beside_each_other_are_two():
    sightings = [item for number in range(6) for item in (at(number / 2, 50, ONE), at(number / 2, 300, OTHER))]
    assert group_into_people(sightings).numbers == [0, 1] * 6


def test_people_who_change_places_keep_their_faces():
    sightings = []
    for number in range(9):
        sightings += [at(number / 2, 20 + 60 * number, ONE), at(number / 2, 500 - 60 * number, OTHER)]
    assert group_into_people(sightings).numbers == [0, 1] * 9


def test_a_person_who_leaves_and_returns_is_recognised():
    times = [0.0, 0.5, 1.0, 4.0, 4.5]
    sightings = [at(time_s, 100 if time_s < 2 else 400, ONE) for time_s in times]
    assert group_into_people(sightings).numbers == [0] * 5


def test_another_person_in_the_same_place_after_a_cut_is_new():
    sightings = [at(0.0, 100, ONE), at(0.5, 100, ONE), at(4.0, 100, OTHER), at(4.5, 100, OTHER)]
    assert group_into_people(sightings).numbers == [0, 0, 1, 1]


def test_two_faces_of_one_frame_are_never_one_person():
    assert sorted(group_into_people([at(0.0, 100, ONE), at(0.0, 101, ONE)]).numbers) == [0, 1]


def test_the_person_with_the_largest_face_area_is_number_0():
    sightings = [at(0.0, 10, ONE, side=50), at(0.0, 300, OTHER, side=200), at(0.5, 10, ONE, side=50)]
    assert group_into_people(sightings).numbers == [1, 0, 1]


def test_no_faces_give_no_people():
    assert group_into_people([]) == ([], [])
