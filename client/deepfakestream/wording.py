"""
What a result means, in words.

The sentences are those of the service's reports (``api/web/wording.py``), which this package does not have; a test
holds them equal.
"""

from typing import Final

from deepfakestream.reasons import REASONS
from deepfakestream.results import Job
from deepfakestream.tables import format_time
from deepfakestream.terminal import pluralize, printable

VERDICTS: Final[dict[str, tuple[str, str]]] = {
    "fake": (
        "Signs of a swapped face",
        (
            "The score is above the limit from which this detector calls media like this fake. That is a strong hint "
            "and no proof. It does not say who made a change, why, or whether words were changed. Look at the times "
            "and people below, and ask for the original."
        ),
    ),
    "real": (
        "No signs of a swapped face",
        (
            "The score is below the limit under which this detector calls media like this real. That does not prove "
            "that the media is genuine: the detector misses some swaps, does not look for other manipulation of the "
            "picture, for changed voices or for a false context, and does not know where the file is from. Check the "
            "source, the date, the place and the sound as you would without it."
        ),
    ),
    "inconclusive": (
        "Not decided",
        (
            "The detector cannot say whether a face was swapped; the reasons are below. This is neither a yes nor a "
            "no: nothing is cleared, and nothing is found. Look at times and people that are marked, and ask for the "
            "original."
        ),
    ),
    "not_applicable": (
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

NOT_A_SHARE: Final = "The score is neither the probability that the media is fake nor the share of it that is."
CLOSING: Final = "Scores are estimates of a program. They help to decide where to look, and are not proof."
_DETECTED: Final = "Only swapped faces are looked for: no other change of the picture, no voices, no false context."
MAX_LISTED: Final = 20


def points(score: float) -> str:
    """Return a score in [0, 1] as reports show it: from 0 to 100, and not in percent, which reads as a probability."""
    return f"{100 * score:.1f}"


def describe_state(job: Job) -> str:
    """Describe how far a job is and what came out, in a few lines."""
    lines = [f"Job {job.id} is {job.status}."]
    if job.error is not None:
        lines.append(f"It failed: {job.error.detail} ({job.error.code})")
    elif not job.is_final:
        total = "an unknown number of" if job.segments_total is None else str(job.segments_total)
        lines.append(f"{job.segments_done} of {total} segments are scored.")
    elif job.verdict is not None:
        lines.append(f"The verdict is {job.verdict}: {_outcome(job)[0]}.")
        if job.fake_score is not None:
            lines.append(f"The mean score over the media is {points(job.fake_score)} of 100.")
    return "\n".join(map(printable, lines))


def explain_verdict(job: Job) -> str:
    """
    Explain the verdict of a job in sentences: what it means and does not mean, why, where to look, and its limits.

    Nothing is quoted that the author of the media wrote.
    """
    if not job.is_final or job.verdict is None:
        return f"{describe_state(job)}\nThere is no verdict to explain."
    title, meaning = _outcome(job)
    lines = [meaning or title]
    lines += [REASONS.get(reason, reason) for reason in job.reasons]
    found = job.evidence
    if job.fake_score is not None and found is not None and found.fake_from is not None:
        if found.real_below is not None:
            lines.append(
                f"Here, a score from {points(found.fake_from)} on is called fake and one below"
                f" {points(found.real_below)} real; between them nothing is decided. These limits rest on"
                f" {pluralize(found.faces, 'scored face')}, and differ from file to file."
            )
        lines.append(NOT_A_SHARE)
    for person in job.people[:MAX_LISTED] if len(job.people) > 1 else ():
        score = "has no score" if person.fake_score is None else f"scores {points(person.fake_score)} of 100"
        lines.append(f"Person {person.person} {score}: {person.verdict or 'not judged'}.")
    lines += [
        f"Person {each.person} scores {points(each.fake_score)} of 100 from {format_time(each.start_s)} to"
        f" {format_time(each.end_s)}: {each.verdict}."
        for each in job.suspicious[:MAX_LISTED]
    ]
    if job.provenance is not None and job.provenance.state in ("valid", "untrusted", "invalid"):
        lines.append(f"The file has Content Credentials, which are {job.provenance.state} and no part of the score.")
        if job.provenance.ai_generated:
            lines.append("They say that a generative model made it, wholly or in part.")
    if job.model is not None:
        lines.append(f"Scored by the checkpoint {job.model.name} {job.model.version}.")
    lines += [_DETECTED, CLOSING]
    return "\n".join([describe_state(job), *map(printable, lines)])


def _outcome(job: Job) -> tuple[str, str]:
    """Return title and meaning of a job's verdict; of one that this release does not know, the word itself."""
    title, meaning = VERDICTS.get(job.verdict or "", (job.verdict or "No result", ""))
    if job.verdict == "fake" and {"one_person", "short_manipulation"} & set(job.reasons):
        meaning = FAKE_IN_PART
    return title, meaning
