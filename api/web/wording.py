"""What the report says in words: verdicts, reasons, and what lowers the trust in a score."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from shared.documents.jobs import JobDocument
from shared.states import Finding, Reason, Verdict

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
            "picture, for changed voices or for a false context, and does not know where the file is from."
        ),
    ),
    Verdict.INCONCLUSIVE: (
        "Not decided",
        "The detector cannot say whether a face was swapped; the reasons are below. This is neither a yes nor a no.",
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
    Reason.UNTRAINED_MODEL: "The checkpoint was not trained; its scores mean nothing.",
    Reason.UNCERTAIN: "The score of the media, or that of one person, is between the limits of real and fake.",
    Reason.SHORT_MANIPULATION: "A short time is suspicious while the media as a whole is not.",
    Reason.ONE_PERSON: "One person, or one page, is suspicious while the average is not.",
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

SMALL_HEIGHT_PX: Final = 480
FEW_FACES: Final = 3


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


def explain_error_rates(metrics: Mapping[str, float]) -> str | None:
    """Return how often a checkpoint was right on labelled media, by the *metrics* of its manifest, if they say so."""
    found = metrics.get("validation_recall")
    false_alarms = metrics.get("validation_false_positive_rate")
    if found is None or false_alarms is None:
        return None
    return (
        "On the labelled media that it was evaluated on, this checkpoint called "
        f"{100 * found:.0f}\u00a0% of the fakes and {100 * false_alarms:.0f}\u00a0% of the genuine media fake. "
        "Expect worse on other media."
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
        found.append("The scores were copied from an earlier job with the same file, options and checkpoint.")
    return found
