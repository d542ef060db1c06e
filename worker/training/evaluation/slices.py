"""Slices of the evaluated media that are reported separately, because an average hides where a detector fails."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from worker.training.scoring.scored_media import ScoredMedium
from worker.training.scoring.skin_tone import DARK_DEG, LIGHT_DEG

Slices = dict[str, list[ScoredMedium]]

SIZES_PX: Final = (64.0, 96.0, 128.0, 192.0)
SHARPNESSES: Final = (50.0, 150.0, 400.0)
LUMAS: Final = (60.0, 100.0, 140.0)
UNKNOWN: Final = "unknown"


def slice_media(media: Sequence[ScoredMedium]) -> dict[str, Slices]:
    """
    Divide *media* in every way that is reported, each medium by the medians over its faces.

    A method's fakes are joined by the real media of the data sets that it appears in, or by all if these have none;
    the other ways partition the media. Ways that would give a single slice, or only unknown values, are left out.
    """
    ways: Mapping[str, Slices] = {
        "set": _by_name(media, lambda medium: medium.set),
        "dataset": _by_name(media, lambda medium: medium.dataset),
        "kind": _by_name(media, lambda medium: "video" if medium.is_video else "image"),
        "method": _by_method(media),
        "compression": _by_name(media, lambda medium: medium.compression or UNKNOWN),
        "face size (px)": _by_number(media, lambda medium: medium.size_px, SIZES_PX),
        "sharpness": _by_number(media, lambda medium: medium.sharpness, SHARPNESSES),
        "brightness (luma)": _by_number(media, lambda medium: medium.luma, LUMAS),
        "skin tone estimate": _by_skin_tone(media),
    }
    return {
        way: slices
        for way, slices in ways.items()
        if slices and (len(slices) > 1 or way in {"set", "dataset", "method"})
    }


def _by_name(media: Sequence[ScoredMedium], name: Callable[[ScoredMedium], str]) -> Slices:
    slices: Slices = {}
    for medium in media:
        slices.setdefault(name(medium), []).append(medium)
    return dict(sorted(slices.items()))


def _by_number(
    media: Sequence[ScoredMedium], number: Callable[[ScoredMedium], float], edges: tuple[float, ...]
) -> Slices:
    """Divide into half-open intervals between *edges*, in order, without empty ones."""
    slices: Slices = {}
    for low, high in zip((None, *edges), (*edges, None), strict=True):
        name = f"below {high:g}" if low is None else f"{low:g} and more" if high is None else f"{low:g} to {high:g}"
        members = [
            medium
            for medium in media
            if (low is None or number(medium) >= low) and (high is None or number(medium) < high)
        ]
        if members:
            slices[name] = members
    return slices


def _by_method(media: Sequence[ScoredMedium]) -> Slices:
    slices = _by_name([medium for medium in media if medium.is_fake], lambda medium: medium.method or UNKNOWN)
    real = [medium for medium in media if not medium.is_fake]
    for name, fakes in slices.items():
        datasets = {medium.dataset for medium in fakes}
        slices[name] = fakes + ([medium for medium in real if medium.dataset in datasets] or real)
    return slices


def _by_skin_tone(media: Sequence[ScoredMedium]) -> Slices:
    def name(medium: ScoredMedium) -> str:
        angle = medium.skin_tone_deg
        if angle is None:
            return UNKNOWN
        return "light" if angle > LIGHT_DEG else "dark" if angle < DARK_DEG else "intermediate"

    slices = _by_name(media, name)
    return slices if set(slices) != {UNKNOWN} else {}
