"""What was looked at in a bundle, what was found, and what that proves."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    passed: bool
    detail: str
    """A sentence: what was found, or what is wrong."""


@dataclass(slots=True)
class Verification:
    """What a bundle turned out to be."""

    checks: list[Check] = field(default_factory=list)
    key_id: str | None = None
    """Of the key that signed it."""
    is_key_expected: bool | None = None
    """Whether it is the key that was asked for; None where none was."""
    is_media_checked: bool = False
    is_rescored: bool = False
    """Whether the media was scanned again, with the same outcome."""
    is_explained: bool = False
    """Whether it has an explanation, which agrees with its segments."""
    stamped_at: str | None = None
    """When a time stamp authority that was given has stamped it, as ISO 8601; None where that was not checked."""
    job: dict[str, Any] | None = None
    """The document of the job, where it could be read."""

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    def proven(self) -> list[str]:
        """Return sentences that say what a bundle proves that passed; nothing for one that failed."""
        if not self.passed or self.job is None:
            return []
        media = self.job.get("media") or {}
        about = f"the media with the SHA-256 {media['sha256']}" if media else "a job that got no media"
        holder = "The deployment whose key you gave" if self.is_key_expected else f"The holder of the key {self.key_id}"
        said = [
            f"{holder} stated exactly these results about {about}.",
            "The scores and limits of segments, people and job follow from the scores of the faces in the bundle.",
        ]
        if self.is_explained:
            said.append(
                "The images of the explanation are those that were signed with it, and each stands for a face of the"
                " bundle with the score of that face."
            )
        if self.is_media_checked:
            said.append("The file that you gave is that media.")
        if self.is_rescored:
            said.append("The weights that the bundle names give these scores for it.")
        if self.stamped_at is not None:
            said.append(
                f"The bundle existed at {self.stamped_at}, as the time stamp authority whose root you gave says."
            )
        return said

    def not_proven(self) -> list[str]:
        """Return sentences that say what no bundle proves, or what this check left open."""
        said = [
            "That the verdict is true: a checkpoint errs as its model card says.",
            "Who is seen, and who made the media.",
        ]
        if self.is_explained:
            said.append(
                "That a face was manipulated, or where: a heat map shows what the network reacted to, and is no proof"
                " of manipulation. Real faces have heat maps as well."
            )
            said.append(
                "That the images show these faces of the media, and that the network gives these heat maps: nothing"
                " here makes them again."
            )
        if self.is_key_expected is None:
            said.insert(
                0,
                f"Whose key it is: signed by key ID {self.key_id}; compare it with the key that the deployment"
                " publishes, or give that one with --key.",
            )
        if self.stamped_at is None:
            said.append("When the bundle was made.")
        if not self.is_rescored:
            said.append("That the faces have the scores that the network gives them: --rescore shows that.")
        if not self.is_media_checked:
            said.insert(0, "That a file of yours is the media: give it with --media.")
        return said

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "passed": self.passed,
            "job_id": (self.job or {}).get("id"),
            "key_id": self.key_id,
            "is_key_expected": self.is_key_expected,
            "stamped_at": self.stamped_at,
            "checks": [{"name": one.name, "passed": one.passed, "detail": one.detail} for one in self.checks],
            "proven": self.proven(),
            "not_proven": self.not_proven(),
        }


def describe_verification(found: Verification) -> str:
    """Return what a check found as lines of text for a person."""
    lines = [f"{'ok    ' if check.passed else 'FAILED'}  {check.name}: {check.detail}" for check in found.checks]
    if not found.passed:
        if [check.name for check in found.checks if not check.passed] == ["media"]:
            return "\n".join([*lines, "", "The bundle itself is intact, but the file that you gave is NOT its media."])
        return "\n".join([*lines, "", "This bundle is NOT acceptable: nothing in it is proven."])
    lines += ["", "Proven:", *(f"  {said}" for said in found.proven())]
    return "\n".join([*lines, "", "Not proven:", *(f"  {said}" for said in found.not_proven())])
