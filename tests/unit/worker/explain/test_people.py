"""Choosing the people and faces of an explanation, and ending it in time."""

import os
import random
import time
import tracemalloc

import numpy as np
import pytest

from shared.errors import DecodeError
from worker.explain.choosing import MAX_MEDIA_S, MAX_SEGMENTS, FaceChoice
from worker.explain.people import ExplanationTimeoutError, cut_faces, explain_people
from worker.media.decoding import Frame
from worker.media.frames import CLIP_LIMITS
from worker.media.probe import MediaFacts
from worker.media.process import CancelToken
from worker.media.segments import Segment
from worker.pipeline.results import FaceResult, PersonResult

FACTS = MediaFacts("video", "mp4", "h264", 64, 48, 0, 15.0, 0.0, 150, 10.0, False)
LANDMARKS = ((20.0, 20.0), (40.0, 20.0), (30.0, 30.0), (22.0, 40.0), (38.0, 40.0))


def plan_of(count, seconds):
    return {index: Segment(index, index * seconds, (index + 1) * seconds) for index in range(count)}


def person(number, scores, start_s, step_s=0.5):
    faces = tuple(
        FaceResult(start_s + place * step_s, (10.0, 10.0, 50.0, 50.0), LANDMARKS, 0.9, 40.0, 90.0, None, score)
        for place, score in enumerate(scores)
    )
    return PersonResult(number, sum(scores) / len(scores), faces).to_json()


def chosen_from(plan, people_of, people=10):
    choice = FaceChoice(people)
    for index, segment in plan.items():
        choice.add(index, people_of(segment))
    return choice.choose(plan)


def decoded(chosen):
    return {face.segment for each in chosen for face in (each.highest, *each.thumbnails)}


def test_only_so_many_seconds_are_decoded_and_the_most_suspicious_faces_come_first():
    plan = plan_of(10, 60.0)
    # Person n has the highest face in segment n, and is more suspicious than the people before.
    chosen = chosen_from(plan, lambda at: [person(at.index, [0.4 + at.index / 20] * 6, at.start_s)])
    assert [each.person for each in chosen] == [9, 8]
    assert decoded(chosen) == {8, 9}
    assert sum(plan[index].end_s - plan[index].start_s for index in decoded(chosen)) <= MAX_MEDIA_S
    # Short segments are limited by their number, and one that is longer than the limit is decoded all the same.
    short = chosen_from(plan_of(200, 1.0), lambda at: [person(who, [0.5], at.start_s) for who in range(10)])
    assert len(decoded(short)) <= MAX_SEGMENTS
    [only] = chosen_from(plan_of(1, 600.0), lambda at: [person(0, [0.5], at.start_s)])
    assert only.thumbnails == (only.highest,)


def test_memory_grows_neither_with_the_length_nor_with_the_people():
    def people_of(at):
        lasting = [person(who, [0.4] * 6, at.start_s) for who in range(4)]
        return [*lasting, *(person(100 + 4 * at.index + who, [0.3] * 6, at.start_s) for who in range(4))]

    plan = plan_of(600, 5.0)
    tracemalloc.start()
    try:
        choice = FaceChoice()
        for index, segment in plan.items():
            choice.add(index, people_of(segment))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 4 * 2**20
    for each in choice.choose(plan)[:4]:
        times_s = [face.face.time_s for face in each.thumbnails]
        gaps_s = np.diff([0.0, *times_s, 3000.0])
        assert gaps_s.max() < 3000.0 * 0.3


def test_the_highest_faces_of_hundreds_of_people_are_found_exactly():
    drawn = random.Random(5)
    appearances = [[(who, round(drawn.random(), 4)) for who in drawn.sample(range(300), 8)] for _ in range(400)]
    highest = {}
    for people in appearances:
        for who, score in people:
            highest[who] = max(score, highest.get(who, 0.0))
    plan = plan_of(400, 0.1)

    def choose():
        return chosen_from(plan, lambda at: [person(who, [score], at.start_s) for who, score in appearances[at.index]])

    chosen = choose()
    expected = sorted(highest, key=lambda who: (-highest[who], who))[:10]
    assert [(each.person, each.highest.score) for each in chosen] == [(who, highest[who]) for who in expected]
    assert choose() == chosen


def test_a_decoder_that_hangs_is_ended_in_time(explainer, tmp_path):
    # Nobody writes to it, so that the decoder waits for ever.
    os.mkfifo(tmp_path / "clip.mp4")
    plan = plan_of(3, 5.0)
    chosen = chosen_from(plan, lambda at: [person(0, [0.5], at.start_s)])
    began = time.monotonic()
    with pytest.raises(ExplanationTimeoutError) as raised:
        explain_people(
            tmp_path / "clip.mp4",
            FACTS,
            plan,
            chosen,
            explainer,
            sample_fps=2.0,
            timeout_s=60.0,
            limits=CLIP_LIMITS,
            budget_s=0.3,
        )
    assert time.monotonic() - began < 20
    assert (raised.value.code, raised.value.retryable) == ("decode_timeout", False)


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_faces_that_were_cut_before_the_time_was_spent_are_kept(explainer, is_cancelled):
    plan = plan_of(2, 5.0)
    [chosen] = chosen_from(plan, lambda at: [person(0, [0.9 - at.index / 2, 0.2], at.start_s)])
    faces = [chosen.highest, *chosen.thumbnails]
    token = CancelToken()

    def frames():
        for time_s in (0.0, 0.5):
            yield Frame(time_s, np.zeros((48, 64, 3), np.uint8))
        yield None
        yield Frame(5.0, np.zeros((48, 64, 3), np.uint8))
        if is_cancelled:
            token.cancel()
        raise DecodeError("the decoder was ended by signal 9")

    if is_cancelled:
        crops = cut_faces(frames(), faces, [0, 1], explainer.manifest.preprocessing, token)
        assert sorted(face.face.time_s for face in crops) == [0.0, 0.5, 5.0]
    else:
        with pytest.raises(DecodeError):
            cut_faces(frames(), faces, [0, 1], explainer.manifest.preprocessing, token)
