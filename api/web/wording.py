"""What the report says in words: verdicts, reasons, and what lowers the trust in a score."""

from typing import Any, Final

from shared.documents.jobs import JobDocument
from shared.states import Finding, Reason, Verdict

VERDICTS: Final = {
    Verdict.FAKE: (
        "Signs of a swapped face",
        (
            "The score lies above the limit from which this detector calls such media fake. That is a strong hint and "
            "no proof: look at the times and people below, and ask for the original."
        ),
    ),
    Verdict.REAL: (
        "No signs of a swapped face",
        (
            "The score lies below the limit of this detector. That does not prove that the media is genuine: kinds of "
            "manipulation that the detector was not trained on may go unseen."
        ),
    ),
    Verdict.INCONCLUSIVE: (
        "Not decided",
        "The detector cannot say whether a face was swapped; the reasons are below. Do not read this as a yes or a no.",
    ),
    Verdict.NOT_APPLICABLE: (
        "No face found",
        "Everything was looked at, and no face was found, so nothing can be said about swapped faces.",
    ),
}
"""Title and meaning of each verdict."""

REASONS: Final = {
    Reason.NO_FACE: "No face was found.",
    Reason.FACES_TOO_SMALL: "Faces are too small to be scored.",
    Reason.FACES_TOO_BLURRED: "Faces are too blurred to be scored.",
    Reason.FACES_TURNED: "A face does not stand upright in the picture and was not scored.",
    Reason.SEGMENTS_FAILED: "A part of the media could not be looked at.",
    Reason.TRUNCATED: "A part of the file is missing or damaged.",
    Reason.OTHER_VIDEO_TRACKS: "The file has further video tracks that were not looked at.",
    Reason.UNTRAINED_MODEL: "The checkpoint was not trained; its scores mean nothing.",
    Reason.UNCERTAIN: "The score lies between the limits of real and fake.",
    Reason.SHORT_MANIPULATION: "A short time is suspicious while the media as a whole is not.",
    Reason.ONE_PERSON: "One person, or one page, is suspicious while the average is not.",
    Reason.LITTLE_EVIDENCE: "Only one or two small, soft or dark faces could be scored.",
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


def explain_verdict(verdict: str | None) -> tuple[str, str]:
    """Return title and meaning of a verdict; of one that this release does not know, the word itself."""
    for known, words in VERDICTS.items():
        if known == verdict:
            return words
    return (verdict or "No result", "")


def explain_reason(reason: str) -> str:
    """Return a reason as a sentence; one that this release does not know as the word itself."""
    return next((sentence for known, sentence in REASONS.items() if known == reason), reason)


def explain_finding(finding: str) -> str:
    """Return a person's finding as a sentence; one that this release does not know as the word itself."""
    return next((sentence for known, sentence in FINDINGS.items() if known == finding), finding)


def list_cautions(job: JobDocument) -> list[str]:
    """Return what lowers the trust in the score of this media, a sentence each, beside the reasons."""
    found = []
    media, evidence = job.media, job.evidence or {}
    if media is not None and media.height_px is not None and media.width_px is not None:
        side = min(media.width_px, media.height_px)
        if side < SMALL_HEIGHT_PX:
            found.append(f"The picture has {media.width_px} × {media.height_px} pixels: faces in it show few details.")
    faces: Any = evidence.get("faces")
    if isinstance(faces, int) and 0 < faces <= FEW_FACES:
        found.append(f"The score rests on {faces} scored {'face' if faces == 1 else 'faces'}: it may be off by chance.")
    if job.reused_from is not None:
        found.append("The scores were taken over from an earlier job with the same file, options and checkpoint.")
    return found
