import math

import pytest

from shared.containers import VIDEO_CODECS
from shared.evidence import H264_EQUIVALENT_BITS, REFERENCE_PIXELS, Evidence, bits_per_pixel
from shared.manifests import Bound, Bounds, Calibration

SIDE = math.isqrt(REFERENCE_PIXELS)


def test_h264_at_the_reference_size_is_not_scaled():
    found = bits_per_pixel(1250, width_px=400, height_px=250, frames=10, codec="h264")
    assert found == pytest.approx(1250 * 8 / (400 * 250 * 10))


def test_larger_frames_and_newer_codecs_need_fewer_bits():
    given = {"width_px": 400, "height_px": 250, "frames": 10, "codec": "h264"}
    small = bits_per_pixel(10_000, **given)
    large = bits_per_pixel(40_000, **{**given, "width_px": 800, "height_px": 500})
    assert large > small
    assert bits_per_pixel(10_000, **{**given, "codec": "av1"}) > bits_per_pixel(10_000, **{**given, "codec": "vp9"})
    assert bits_per_pixel(10_000, **{**given, "codec": "vp9"}) > small


@pytest.mark.parametrize("codec", sorted(H264_EQUIVALENT_BITS.keys() - {"av1", "hevc", "vp9"}))
def test_older_codecs_need_more_bits_for_the_same_quality(codec):
    given = {"width_px": 400, "height_px": 250, "frames": 10}
    h264 = bits_per_pixel(10_000, **given, codec="h264")
    assert bits_per_pixel(10_000, **given, codec="unknown") == h264
    assert bits_per_pixel(10_000, **given, codec=codec) == pytest.approx(H264_EQUIVALENT_BITS[codec] * h264)
    assert bits_per_pixel(10_000, **given, codec=codec) < h264


def test_every_measurable_accepted_codec_has_a_scale():
    assert set(VIDEO_CODECS) - H264_EQUIVALENT_BITS.keys() == {"h264", "vp6f", "wmv3", "vc1"}


@pytest.mark.parametrize("missing", ["width_px", "height_px", "frames"])
def test_bits_per_pixel_are_unknown_without_pixels_or_frames(missing):
    given = {"width_px": 400, "height_px": 250, "frames": 10, "codec": "h264", missing: 0}
    assert bits_per_pixel(10_000, **given) is None


def test_a_bound_moves_with_faces_and_rises_with_people():
    bound = Bound(one=2.0, many=0.0, doubling=1.0)
    odds = [
        math.log(score / (1 - score)) for score in (bound.score_at(Evidence("video", n, 1)) for n in (1, 2, 4, 1000))
    ]
    assert odds == pytest.approx([2.0, 1.0, 0.5, 0.002], abs=1e-6)
    assert bound.score_at(Evidence("video", 0, 0)) == bound.score_at(Evidence("video", 1, 1))
    two, four = (bound.score_at(Evidence("image", 1, people)) for people in (2, 4))
    assert math.log(four / (1 - four)) - math.log(two / (1 - two)) == pytest.approx(1.0)


def test_the_lower_limit_is_never_above_the_upper():
    bounds = Bounds(low=Bound(one=3.0, many=3.0), high=Bound(one=1.0, many=1.0))
    calibration = Calibration(temperature=1.0, threshold=0.7, uncertainty_band=(0.7, 0.7), bounds={"image": bounds})
    low, high = calibration.limits(Evidence("image", 1, 1))
    assert low == high == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-6)
    assert calibration.limits(Evidence("video", 1, 1)) == (0.7, 0.7)


def test_a_description_has_bounds_only_if_they_are_set():
    plain = Calibration(temperature=1.0, threshold=0.7, uncertainty_band=(0.5, 0.7))
    assert plain.evidence_fields() == {}
    fields = plain.model_copy(update={"offset": 1.5, "min_bits_per_pixel": 0.03}).evidence_fields()
    assert fields == {"offset": 1.5, "bounds": None, "min_bits_per_pixel": 0.03}
