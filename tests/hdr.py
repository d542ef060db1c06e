"""HDR videos that tests make of SDR ones."""

import numpy as np

from shared.config import Limits
from tests.clips import run
from worker.media import tonemap
from worker.media.frames import read_frames
from worker.media.probe import probe
from worker.media.tonemap import TO_BT709

LIMITS = Limits().for_media()
NAMES = {"pq": "smpte2084", "hlg": "arib-std-b67"}
CODES = {"smpte2084": 16, "arib-std-b67": 18}


def pq_of(light):
    """The PQ signal of cd/m²: the inverse EOTF of BT.2100."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    power = (np.clip(light, 0.0, None) / 10_000.0) ** m1
    return ((c1 + c2 * power) / (1.0 + c3 * power)) ** m2


def hlg_of(light):
    """The HLG signal of cd/m² on a display of 1000: the inverse OOTF and the OETF of BT.2100."""
    luminance = np.maximum(light @ tonemap.LUMINANCE, 1e-9)[..., None] / 1000.0
    scene = np.clip(light / 1000.0 * luminance ** (1 / 1.2 - 1.0), 0.0, None)
    return np.where(
        scene <= 1 / 12, np.sqrt(3 * scene), 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    )


def hdr_of(sdr, dynamic_range):
    """The HDR signal of SDR pictures whose white is 203 cd/m²."""
    light = 203.0 * (np.asarray(sdr, float) ** 2.4) @ np.linalg.inv(TO_BT709).T
    return (pq_of if dynamic_range == "pq" else hlg_of)(light)


def as_hdr(path, source, dynamic_range, *, tags=True, extra=()):
    """*source* encoded anew as HDR, by a lossless codec."""
    facts = probe(source, LIMITS)
    read = read_frames(source, facts, start_s=0.0, end_s=facts.duration_s, sample_fps=30.0, timeout_s=60)
    frames = [frame.pixels for frame in read]
    height, width = frames[0].shape[:2]
    signal = [np.rint(hdr_of(frame / 255.0, dynamic_range) * 65535).astype("<u2") for frame in frames]
    raw = path.with_suffix(".raw")
    raw.write_bytes(b"".join(np.clip(each, 0, 65535).tobytes() for each in signal))
    transfer = NAMES[dynamic_range]
    named = ("-color_primaries", "bt2020", "-color_trc", transfer, "-colorspace", "bt2020nc") if tags else ()
    vui = f":colorprim=9:transfer={CODES[transfer]}:colormatrix=9" if tags else ""
    run(
        *(
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb48le",
            "-s",
            f"{width}x{height}",
            "-r",
            str(facts.frame_rate),
            "-i",
            str(raw),
        ),
        *("-vf", "scale=out_color_matrix=bt2020:out_range=tv,format=yuv420p10le", "-c:v", "libx265", *named),
        *("-preset", "ultrafast", "-x265-params", f"log-level=error:lossless=1{vui}", *extra, str(path)),
    )
    raw.unlink()
    return path
