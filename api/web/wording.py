"""What the report says in words: verdicts, reasons, and what lowers the trust in a score."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from api.web.timeline import Limit
from shared.documents.jobs import JobDocument
from shared.states import FINAL_JOB_STATUSES, Finding, JobStatus, Reason, Verdict

VERDICTS: Final = {
    Verdict.FAKE: (
        "Signs of a swapped face",
        (
            "The score is above the limit from which this detector calls media like this fake. That is a strong hint "
            "and no proof. It does not say who made a change, why, or whether words were changed. Look at the times "
            "and people below, and ask for the original."
        ),
    ),
    Verdict.REAL: (
        "No signs of a swapped face",
        (
            "The score is below the limit under which this detector calls media like this real. That does not prove "
            "that the media is genuine: the detector misses some swaps, does not look for other manipulation of the "
            "picture, for changed voices or for a false context, and does not know where the file is from. Check the "
            "source, the date, the place and the sound as you would without it."
        ),
    ),
    Verdict.INCONCLUSIVE: (
        "Not decided",
        (
            "The detector cannot say whether a face was swapped; the reasons are below. This is neither a yes nor a "
            "no: nothing is cleared, and nothing is found. Look at times and people that are marked, and ask for the "
            "original."
        ),
    ),
    Verdict.NOT_APPLICABLE: (
        "No face found",
        (
            "Everything was analysed and no face was found, so nothing can be said about swapped faces. That does not "
            "mean that the media is genuine."
        ),
    ),
}
"""Title and meaning of each verdict."""
FAKE_IN_PART: Final = (
    "One person, or a short time, is above the limit from which this detector calls such faces fake, while the score "
    "of the media as a whole is not. That is a strong hint and no proof. Look at the person or the time that is marked "
    "below, and ask for the original."
)
"""Meaning of the verdict fake where the score of the whole media would not give it."""

REASONS: Final = {
    Reason.NO_FACE: "No face was found.",
    Reason.FACES_TOO_SMALL: "Faces were too small to be scored.",
    Reason.FACES_TOO_BLURRED: "Faces were too blurred to be scored.",
    Reason.FACES_TURNED: "A face is not upright in the picture and was not scored.",
    Reason.SEGMENTS_FAILED: "A part of the media could not be analysed.",
    Reason.TRUNCATED: "A part of the file is missing or damaged, and was not analysed.",
    Reason.OTHER_VIDEO_TRACKS: "The file has further video tracks that were not analysed.",
    Reason.UNTRAINED_MODEL: "The detector was not trained; its scores mean nothing.",
    Reason.UNCERTAIN: "The score of the media, or that of one person, is between the limits of real and fake.",
    Reason.SHORT_MANIPULATION: "A short time scored higher than the rest and is marked below.",
    Reason.ONE_PERSON: "One person, or one page, scored higher than the rest.",
    Reason.LITTLE_EVIDENCE: "Only one or two small, soft or dark faces could be scored.",
    Reason.DROPPED: "Parts of the live stream were left out, since scoring could not keep up.",
    Reason.GAP: "Parts of the live stream were missed, since its source was away or nobody read it.",
    Reason.HEAVILY_COMPRESSED: "The video is compressed so heavily that a swap may not show, or that compression alone "
    "may have raised the score.",
}

FINDINGS: Final = {
    Finding.CONFIRMED_FAKE: "A person confirmed that this media was manipulated.",
    Finding.CONFIRMED_REAL: "A person confirmed that this media is genuine.",
    Finding.DISPUTED: "A person disputes this result.",
}

PERSON_RESULTS: Final = {
    Verdict.FAKE: "signs of a swap",
    Verdict.REAL: "no signs of a swap",
    Verdict.INCONCLUSIVE: "not decided",
}
"""What the score of one person means, in a few words."""
NOT_A_SHARE: Final = "The score is neither the probability that the media is fake nor the share of it that is."
CLOSING: Final = "Scores are estimates of a program. They help to decide where to look, and are not proof."
MAP_NOTE: Final = (
    "Of each person, the face with the highest score, and where the detector reacted to it: most where it is yellow, "
    "less where it is green or blue. These are not the places that were altered; genuine faces show such spots, too."
)

SMALL_HEIGHT_PX: Final = 480
FAKES_SHARE: Final = 0.01
"""Share of fakes for which readers are told how many alarms are false."""
FEW_FACES: Final = 3


def points(score: float) -> str:
    """Return a score in [0, 1] as reports show it: from 0 to 100, and not in percent, which reads as a probability."""
    return f"{100 * score:.1f}"


def name_moment(moment: datetime) -> str:
    """Return date and time, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d at %H:%M UTC")


def explain_outcome(job: JobDocument) -> tuple[str, str]:
    """Return title and meaning of a job's verdict, or of why it has none."""
    if job.status not in FINAL_JOB_STATUSES:
        return ("Being analysed", "The job has not ended yet. Get the report again when it has.")
    if job.error:
        return ("No result", f"The job failed: {make_printable(job.error.detail)} ({job.error.code})")
    if job.status == JobStatus.CANCELLED:
        return ("Cancelled", "The job was cancelled before it had a result.")
    return explain_verdict(job.verdict, job.reasons)


def explain_verdict(verdict: str | None, reasons: Sequence[str] = ()) -> tuple[str, str]:
    """Return title and meaning of a verdict; of one that this release does not know, the word itself."""
    for known, (title, meaning) in VERDICTS.items():
        if known == verdict:
            is_in_part = Reason.ONE_PERSON in reasons or Reason.SHORT_MANIPULATION in reasons
            return (title, FAKE_IN_PART if known == Verdict.FAKE and is_in_part else meaning)
    return (verdict or "No result", "")


def explain_reason(reason: str) -> str:
    """Return a reason as a sentence; one that this release does not know as the word itself."""
    return next((sentence for known, sentence in REASONS.items() if known == reason), reason)


def explain_finding(finding: str) -> str:
    """Return a person's finding as a sentence; one that this release does not know as the word itself."""
    return next((sentence for known, sentence in FINDINGS.items() if known == finding), finding)


def explain_limits(evidence: Mapping[str, Any] | None) -> str | None:
    """Return the limits of the verdicts in the *evidence* of a job as a sentence; None if it has none."""
    fake_from, real_below = (evidence or {}).get("fake_from"), (evidence or {}).get("real_below")
    if fake_from is None or real_below is None:
        return None
    return (
        f"Here, a score from {points(fake_from)} on is called fake and one below {points(real_below)} real; between "
        "them nothing is decided. These limits depend on how many faces were scored, and differ from file to file."
    )


def name_limit(limit: Limit) -> str:
    """Return a limit of the timeline in words."""
    return f"{'fake from' if limit.name == 'fake' else 'real below'} {points(limit.score)}"


def explain_bars(*, is_image: bool) -> str:
    """Return what the bars of the timeline are."""
    part = "page" if is_image else "segment of the media"
    return (
        f"Each bar is a {part}, as high as its score from 0 to 100; a grey one has no score, because no face in it "
        "could be scored. The colour says where it lies between the limits."
    )


def explain_mark(verdict: str) -> str:
    """Return what the score of a suspicious stretch of time means."""
    if verdict == Verdict.FAKE:
        return "alone enough to be called fake"
    return "stands out, and is not enough alone"


def explain_person(verdict: str, *, is_decided: bool) -> str:
    """
    Return the verdict of one person in a few words; one that this release does not know as the word itself.

    Args:
        is_decided: Whether the job has a verdict. If it has none, a low score of a person clears nobody.
    """
    if verdict == Verdict.REAL and not is_decided:
        return "low, and not decided"
    return next((words for known, words in PERSON_RESULTS.items() if known == verdict), make_printable(verdict))


def count_people(listed: int, total: int, *, is_image: bool) -> str:
    """Return how many people were distinguished, how many of them are listed, and what their numbers mean."""
    words = f"{total} {'person was' if total == 1 else 'people were'} distinguished"
    if total > listed:
        words += f"; the {listed} most suspicious are listed"
    again = "a person on several pages" if is_image else "somebody who is seen again after a cut"
    return f"{words}. Their numbers begin with 0 and are no identities, and {again} may be counted twice."


def explain_map(person: Mapping[str, Any]) -> str:
    """Return what a heat map is worth, by the score of the face without the hottest part of the map."""
    if person["explains"]:
        # Both were computed anew, so that they compare with each other.
        score, without = points(person["explained_score"]), points(person["score_without_hottest_tenth"])
        return f"With the strongest spots hidden, a tenth of this picture, it falls from {score} to {without}."
    return "The spots explain nothing here: the score hardly falls with the strongest ones hidden."


def explain_error_rates(metrics: Mapping[str, float]) -> str | None:
    """Return how often a checkpoint was right on labelled media, by the *metrics* of its manifest, if they say so."""
    found = metrics.get("validation_recall")
    false_alarms = metrics.get("validation_false_positive_rate")
    if not found or false_alarms is None:
        return None
    rare = (1 - FAKES_SHARE) * false_alarms
    return (
        f"In tests, of 100 fakes this detector called {100 * found:.0f} fake, and the others real or not decided. Of "
        f"100 genuine files it called {100 * false_alarms:.0f} fake. Expect worse on other media. Where only 1 of 100 "
        f"files is fake, about {100 * rare / (rare + FAKES_SHARE * found):.0f} of 100 that it calls fake are genuine."
    )


def make_printable(text: str) -> str:
    r"""Return *text* on one line, with invisible characters and those that reorder others as escapes (``\u202e``)."""
    return "".join(one if one.isprintable() else " " if one.isspace() else f"\\u{ord(one):04x}" for one in text)


def list_cautions(job: JobDocument) -> list[str]:
    """Return what lowers the trust in the score of this media, a sentence each, beside the reasons."""
    found = []
    media, evidence = job.media, job.evidence or {}
    if media is not None and media.height_px is not None and media.width_px is not None:
        side = min(media.width_px, media.height_px)
        if side < SMALL_HEIGHT_PX:
            found.append(f"The picture has {media.width_px} × {media.height_px} pixels: its faces show little detail.")
    faces: Any = evidence.get("faces")
    if isinstance(faces, int) and 0 < faces <= FEW_FACES:
        noun = "face" if faces == 1 else "faces"
        found.append(f"The score is based on {faces} scored {noun}: it may be off by chance.")
    if job.reused_from is not None:
        found.append("The scores were copied from an earlier job with the same file, options and detector.")
    return found
