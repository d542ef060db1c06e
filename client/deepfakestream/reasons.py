"""
What reasons of a verdict mean, in words.

The sentences are those of the service's reports (``api/web/wording.py``); a test holds them equal.
"""

from typing import Final

REASONS: Final[dict[str, str]] = {
    "no_face": "No face was found.",
    "faces_too_small": "Faces were too small to be scored.",
    "faces_too_blurred": "Faces were too blurred to be scored.",
    "faces_turned": "A face is not upright in the picture and was not scored.",
    "segments_failed": "A part of the media could not be analysed.",
    "truncated": "A part of the file is missing or damaged, and was not analysed.",
    "other_video_tracks": "The file has further video tracks that were not analysed.",
    "untrained_model": "The detector was not trained; its scores mean nothing.",
    "uncertain": "The score of the media, or that of one person, is between the limits of real and fake.",
    "short_manipulation": "A short time scored higher than the rest and is marked below.",
    "one_person": "One person, or one page, scored higher than the rest.",
    "little_evidence": "Only one or two small, soft or dark faces could be scored.",
    "dropped": "Parts of the live stream were left out, since scoring could not keep up.",
    "gap": "Parts of the live stream were missed, since its source was away or nobody read it.",
    "heavily_compressed": "The video is compressed so heavily that a swap may not show, or that compression alone "
    "may have raised the score.",
}
"""Reason → sentence."""
