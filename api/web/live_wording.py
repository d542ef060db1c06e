"""What the page of a live stream says in words while the stream runs."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from api.web.timeline import clock
from api.web.wording import REASONS, explain_reason, make_printable, points
from shared.documents.streams import StreamSummary
from shared.states import Reason, StreamEnd, StreamEventKind, StreamState, Verdict

ALERT_TITLE: Final = "Alert: signs of a swapped face"
AGAIN_TITLE: Final = "Signs of a swapped face again"
UNTRAINED_TITLE: Final = "Nothing is decided"
WAITING: Final = (
    "Waiting for the first pictures",
    "Scores appear here once the first segment has been read and scored.",
)
AWAY: Final = ("The source is away", "Nothing arrives that could be judged, so that there is no alert says nothing.")
NOBODY: Final = (
    "No face at present",
    "No face could be scored of late, so nothing can be said about swapped faces.",
)
NO_ALERT: Final = (
    "No alert at present",
    (
        "No person in the newest pictures scores above the limit of an alert. That does not prove that the stream is "
        "genuine: the detector misses some swaps, and does not look for other manipulation."
    ),
)
SEGMENT_FAILED: Final = "It could not be analysed."
HINT: Final = "That is a strong hint and no proof. Look at the person, and ask in another way whether it is them."
ENDS: Final = {
    StreamEnd.REQUEST: "The stream was stopped",
    StreamEnd.DURATION: "The stream has reached its longest duration",
    StreamEnd.SOURCE: "The source has ended",
}


def explain_present(stream: StreamSummary, people: Sequence[Mapping[str, Any]], *, is_trained: bool) -> tuple[str, str]:
    """Return title and meaning of the rolling verdict on a stream that has not ended."""
    if not is_trained:
        return UNTRAINED_TITLE, REASONS[Reason.UNTRAINED_MODEL]
    alerting = [person["person"] for person in people if person["is_alerting"]]
    if alerting:
        return ALERT_TITLE, f"The newest faces of {_name_people(alerting)} score above the limit of an alert. {HINT}"
    again = [person["person"] for person in people if person.get("is_held_back")]
    if again:
        return AGAIN_TITLE, (
            f"The newest faces of {_name_people(again)} score above the limit of an alert again. An alert about a "
            f"person is raised once a minute at most. {HINT}"
        )
    unjudged = (
        (stream.counters.segments == 0, WAITING),
        (stream.state == StreamState.AWAY, AWAY),
        (all(person["fake_score"] is None for person in people), NOBODY),
    )
    return next((words for is_so, words in unjudged if is_so), NO_ALERT)


def explain_source(stream: StreamSummary) -> str:
    """Return the state of the source as a sentence or two."""
    why = f" {_quote_error(stream.source_error.detail)}" if stream.source_error is not None else ""
    if stream.why is not None:
        end = next((words for known, words in ENDS.items() if known == stream.why), "The stream has ended")
        return f"{end}; the last segments are being scored."
    if stream.state == StreamState.AWAY:
        if stream.push is not None:
            return f"The publisher is away, and the stream goes on when it comes back.{why}"
        return f"The source is away, and is connected again as soon as it answers.{why}"
    if stream.state == StreamState.WAITING:
        return f"The source has sent no picture yet.{why}"
    return "The source is connected."


def count_parts(stream: StreamSummary) -> str:
    """Return how much was read, left out and missed as a sentence."""
    counters = stream.counters
    parts = [
        _count(counters.segments, "segment read", "segments read"),
        f"{counters.dropped} left out since scoring could not keep up",
        _count(counters.gaps, "gap", "gaps"),
        _count(counters.reconnects, "new connection", "new connections"),
    ]
    return f"{', '.join(parts)}."


def explain_rolling(person: Mapping[str, Any], window_s: float, *, is_trained: bool) -> str:
    """Return what the faces of one person say at present; *person* is a ``StreamPersonDocument``."""
    score, limit = person["fake_score"], person.get("fake_from")
    if score is None:
        return f"No face was scored in the last {window_s:g} s."
    faces = _count(person["faces"], "face", "faces")
    if limit is None or not is_trained:
        return f"Over the last {window_s:g} s: mean score {points(score)}, {faces}."
    alone = " The newest faces alone are above their limit." if is_suspicious(person) and score < limit else ""
    return (
        f"{_name_rolling(person)}. Over the last {window_s:g} s: mean score {points(score)}, {faces}, limit of an "
        f"alert {points(limit)}.{alone}"
    )


def explain_event(kind: str, data: Mapping[str, Any]) -> str | None:
    """Return an event of a stream as a sentence for people who follow it; None for one that needs no words."""
    if kind == StreamEventKind.ALERT:
        person, when = data["person"], clock(data["time_s"])
        if data["action"] == "raised":
            return (
                f"{when}: alert about person {person}. Mean score {points(data['fake_score'])} over "
                f"{_count(data['faces'], 'face', 'faces')} since {clock(data['start_s'])}; the limit is "
                f"{points(data['limit'])}."
            )
        if data["fake_score"] is None:
            return f"{when}: the alert about person {person} is over; the person is not seen any more."
        return f"{when}: the alert about person {person} is over. Mean score {points(data['fake_score'])}."
    if kind == StreamEventKind.SOURCE:
        if data["state"] == StreamState.CONNECTED:
            return "The source is connected."
        return f"The source is away. {_quote_error((data['error'] or {}).get('detail', ''))}".rstrip()
    return None


def is_suspicious(person: Mapping[str, Any]) -> bool:
    """Return whether the newest faces of a person are above the limit of an alert, whether or not one is raised."""
    return bool(person["is_alerting"] or person.get("is_held_back"))


def _name_people(numbers: Sequence[int]) -> str:
    return f"person {numbers[0]}" if len(numbers) == 1 else f"persons {', '.join(map(str, numbers))}"


def explain_unscored(reasons: Sequence[str]) -> str:
    """Return why a segment has no score, as sentences."""
    return " ".join(SEGMENT_FAILED if each == "segment_failed" else explain_reason(each) for each in reasons)


def _name_rolling(person: Mapping[str, Any]) -> str:
    if person["is_alerting"]:
        since = person["raised_s"]
        return "Alert: signs of a swap" if since is None else f"Alert since {clock(since)}: signs of a swap"
    if person.get("is_held_back"):
        return "Signs of a swap again, less than a minute after the last alert"
    words = {
        Verdict.FAKE: "Above the limit",
        Verdict.REAL: "No signs of a swap at present",
        Verdict.INCONCLUSIVE: "Not decided",
    }
    return next((each for known, each in words.items() if known == person.get("verdict")), "No alert")


def _quote_error(detail: str) -> str:
    """Return the sentence of an error with a capital letter and a full stop."""
    text = make_printable(detail)
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}" if text else ""


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
