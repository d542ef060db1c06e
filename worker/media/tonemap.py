"""
Tone mapping from HDR to SDR: the lookup table with which ffmpeg converts PQ and HLG frames.

Detector and network were trained on SDR pictures; HDR pictures interpreted as SDR look flat and grey.
The mapping is display-referred: the light of a display of 1000 cd/m², with diffuse white at 203 cd/m² as in ITU-R
BT.2408, becomes that of an SDR display (BT.1886) with the primaries of BT.709. What is darker than two thirds of white
is unchanged, so that an SDR scene in an HDR file looks as in an SDR file; the rest, with the highlights, is rolled off.

ffmpeg's own filters for it (zscale, libplacebo) are not in every build; ``lut3d``, which reads this table, is.
"""

from functools import lru_cache
from io import SEEK_END, BytesIO
from tempfile import NamedTemporaryFile
from typing import IO, Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

DynamicRange = Literal["sdr", "pq", "hlg"]
Floats = NDArray[np.float64]

WHITE_CD_M2: Final = 203.0
"""Diffuse white of HDR pictures (BT.2408), which becomes nearly the white of SDR ones."""
PEAK_CD_M2: Final = 1000.0
"""Light that becomes white, with everything brighter. It is also the peak of HLG's reference display."""
GAMMA: Final = 2.4
"""Gamma of an SDR display, BT.1886."""
KNEE: Final = 0.85
"""SDR signal from which highlights are rolled off."""
SIDE: Final = 49
"""Grid points of the table along each of red, green and blue; the signal between them is interpolated."""

TO_BT709: Final = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]]
)
"""Linear light in the primaries of BT.2020 → BT.709 (BT.2087)."""
LUMINANCE: Final = np.array([0.2627, 0.6780, 0.0593])
"""Luminance of red, green and blue in BT.2020."""


def to_sdr(signal: Floats, dynamic_range: DynamicRange) -> Floats:
    """
    Map HDR pictures to SDR.

    Args:
        signal: (..., 3) RGB in the primaries of BT.2020, as coded: in [0, 1].
        dynamic_range: ``pq`` or ``hlg``.

    Returns:
        (..., 3) RGB in the primaries of BT.709, as coded for an SDR display: in [0, 1].
    """
    light = decode_pq(signal) if dynamic_range == "pq" else decode_hlg(signal)
    linear = np.clip(light @ TO_BT709.T, 0.0, None) / WHITE_CD_M2
    coded = linear ** (1 / GAMMA)
    # One factor for all three channels, so that highlights keep their colour.
    brightest = np.max(coded, axis=-1, keepdims=True)
    factor = _roll_off_highlights(brightest) / np.maximum(brightest, 1e-9)
    return np.asarray(np.clip(coded * factor, 0.0, 1.0))


def _roll_off_highlights(coded: Floats) -> Floats:
    """Compress the signal above KNEE so that the peak becomes 1."""
    peak = (PEAK_CD_M2 / WHITE_CD_M2) ** (1 / GAMMA)
    over = np.clip((coded - KNEE) / (peak - KNEE), 0.0, 1.0)
    # At the knee the curve is as steep as the linear part.
    steepness = (peak - KNEE) / (1 - KNEE)
    bent = steepness * over / (1 + (steepness - 1) * over)
    return np.asarray(np.minimum(coded, KNEE) + (1 - KNEE) * bent)


def decode_pq(signal: Floats) -> Floats:
    """Return the light of a PQ signal in cd/m²: the EOTF of BT.2100, table 4."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    power = signal ** (1 / m2)
    return np.asarray(10_000.0 * (np.maximum(power - c1, 0.0) / (c2 - c3 * power)) ** (1 / m1))


def decode_hlg(signal: Floats) -> Floats:
    """Return the light of an HLG signal on a PEAK_CD_M2 display, in cd/m²: inverse OETF and OOTF, BT.2100, table 5."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luminance = scene @ LUMINANCE
    return np.asarray(PEAK_CD_M2 * luminance[..., None] ** 0.2 * scene)


@lru_cache(maxsize=2)
def _render_table(dynamic_range: DynamicRange) -> bytes:
    """Write the lookup table for *dynamic_range* in the format "cube", 3 MB of text."""
    steps = np.linspace(0.0, 1.0, SIDE)
    # Red changes fastest.
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    table = to_sdr(np.stack([red, green, blue], axis=-1).reshape(-1, 3), dynamic_range)
    text = BytesIO(b"LUT_3D_SIZE %d\n" % SIDE)
    text.seek(0, SEEK_END)
    np.savetxt(text, table, fmt="%.6f")
    return text.getvalue()


def open_table_file(dynamic_range: DynamicRange) -> IO[bytes]:
    """Write the lookup table for *dynamic_range* to a temporary file, which is deleted when it is closed."""
    file = NamedTemporaryFile(prefix="deepfakestream-", suffix=".cube")  # noqa: SIM115 - its holder closes it
    file.write(_render_table(dynamic_range))
    file.flush()
    return cast("IO[bytes]", file)
