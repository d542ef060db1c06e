"""What a source has missed, by when its pieces arrive at a reader that has other things to do as well."""

import pytest

from worker.live.lateness import LATE_S, Lateness
from worker.streams.values import Piece

PIECE_S = 2.0


def piece(number):
    return Piece(
        start_s=number * PIECE_S,
        end_s=(number + 1) * PIECE_S,
        lead_s=0.0,
        data=b"",
        codec="h264",
        width_px=64,
        height_px=48,
        is_discontinuous=False,
    )


def missed(available_s, storing_s=lambda _: 0.01):
    """
    What is found at each piece by a reader that stores one after the other.

    Args:
        available_s: When the source has sent each piece.
        storing_s: Number of a piece → how long it takes to store it.
    """
    lateness, now, found = Lateness(), 0.0, []
    for number, at in enumerate(available_s):
        arrived = max(now, at)
        found.append(lateness.find_missed(piece(number), arrived_s=arrived, waited_s=arrived - now))
        now = arrived + storing_s(number)
    return found


def sent(count, *pauses):
    """When a source has sent each of its pieces, with (number, seconds) of pauses before some of them."""
    return [(number + 1) * PIECE_S + sum(s for first, s in pauses if number >= first) for number in range(count)]


@pytest.mark.parametrize("storing_s", [0.0, 0.05, 0.3, 0.8, 1.5])
def test_a_source_that_stops_with_its_clock_has_missed_the_time_even_if_storing_is_slow(storing_s):
    found = missed(sent(20, (10, 8.0)), lambda _: storing_s)
    assert found.index(max(found)) == 11, "it is certain with the second piece after the pause"
    assert sum(found) == pytest.approx(8.0)
    assert len([one for one in found if one]) == 1


def test_where_storing_leaves_no_time_to_wait_a_pause_is_not_found():
    """Nothing tells it from pieces that waited for their storage."""
    assert sum(missed(sent(20, (10, 8.0)), lambda _: 1.7)) == 0.0


def test_two_pauses_are_two_gaps():
    found = missed(sent(30, (10, 8.0), (20, 6.0)), lambda _: 0.3)
    assert [one for one in found if one] == [pytest.approx(8.0), pytest.approx(6.0)]


def test_a_shorter_pause_is_none():
    assert sum(missed(sent(20, (10, LATE_S - 0.1)))) == 0.0


@pytest.mark.parametrize("rate", [1.2, 2.0, 4.0, 20.0, 1000.0])
def test_what_a_network_held_up_was_not_missed(rate):
    """After ten seconds the source sends what it had meanwhile, faster than its pictures last."""
    times, at = [], 0.0
    for number in range(80):
        live = (number + 1) * PIECE_S
        at = max(live, at + PIECE_S / rate) if number > 5 else live
        if number == 5:
            at += 10.0
        times.append(at)
    assert times[-1] == 80 * PIECE_S
    assert sum(missed(times)) == 0.0


@pytest.mark.parametrize("between_s", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("began", [41.0, 42.0, 43.0, 44.0])
def test_two_hold_ups_with_a_burst_between_them_are_no_gap(began, between_s):
    """A network holds up for six seconds, lets what has come pass at 20 times its rate, and holds up again."""
    again = began + 6.0 + between_s
    times, at = [], 0.0
    for number in range(30):
        at = max((number + 1) * PIECE_S, at + PIECE_S / 20)
        for begin in (began, again):
            at = begin + 6.0 if begin <= at < begin + 6.0 else at
        times.append(at)
    assert times[-1] == 30 * PIECE_S
    assert sum(missed(times)) == 0.0


@pytest.mark.parametrize("stalled_s", [7.0, 30.0])
def test_what_a_slow_storage_held_up_was_not_missed(stalled_s):
    assert sum(missed(sent(40), lambda number: stalled_s if number == 10 else 0.2)) == 0.0


def test_after_a_slow_storage_a_pause_is_still_found():
    found = missed(sent(40, (25, 8.0)), lambda number: 10.0 if number == 10 else 0.2)
    assert [one for one in found if one] == [pytest.approx(8.0)]
