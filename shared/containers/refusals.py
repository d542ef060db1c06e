"""Errors for formats and codecs that are not accepted, which name them."""

from shared.errors import MediaError, NotMediaError, UnsupportedCodecError, UnsupportedMediaError

ACCEPTED = (
    "accepted are JPEG, PNG, GIF, WebP, BMP, TIFF, HEIC, AVIF, JPEG 2000 and JPEG XL images, and mp4, mov, 3gp, mkv,"
    " webm, avi, MPEG-TS, MPEG-PS, MXF, FLV and Windows Media videos"
)
CODECS = (
    "H.264, HEVC, VP8, VP9, AV1, MPEG-1, MPEG-2, MPEG-4, ProRes, DNxHD, MJPEG, H.263, Sorenson Spark, VP6, WMV 7 to 9,"
    " VC-1 and Microsoft MPEG-4"
)

_OTHER_MEDIA: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF", "a PDF"),
    (0, b"ID3", "an MP3 sound file"),
    (0, b"fLaC", "a FLAC sound file"),
    (0, b"OggS", "an Ogg file"),
    (0, b".RMF", "a RealMedia file"),
    (0, b"\x00\x00\x01\xb3", "an MPEG video stream without a container"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"II+\0", "a BigTIFF image"),
    (0, b"MM\0+", "a BigTIFF image"),
    (0, b"\0\0\x01\0", "an icon"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR image"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw image"),
    (0, b"IIU\0", "a camera's raw image"),
    (0, b"PK\x03\x04", "a ZIP archive or an office document"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"7z\xbc\xaf", "a 7-Zip archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"#EXTM3U", "a playlist"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"<!DOCTYPE html", "a web page"),
    (0, b"<html", "a web page"),
    (8, b"WAVE", "a WAVE sound file"),
)


def refusal(head: bytes, riff_type: bytes) -> MediaError:
    """Return the error for a file that begins with *head*, which no inspector accepts."""
    for offset, magic, name in _OTHER_MEDIA:
        if head[offset : offset + len(magic)] == magic and (offset == 0 or riff_type == magic):
            return UnsupportedMediaError(f"the file is {name}, which is not accepted; {ACCEPTED}")
    if head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE6 in (0xE2, 0xE4):
        return UnsupportedMediaError(f"the file is an MPEG sound file, which is not accepted; {ACCEPTED}")
    return NotMediaError(f"the file is not a known image or video; {ACCEPTED}")


_CODEC_NAMES = dict.fromkeys(("\0\0\0\0", "DIB ", "raw ", "V_UNCOMPRESSED", "rawvideo"), "uncompressed video")
"""Names that containers and ffmpeg give to frequent codecs that are not accepted → common names."""


def unsupported_codec(coding: str) -> UnsupportedCodecError:
    """Return the error for a video codec, by the name that the file or the decoder gives it."""
    printable = "".join(character for character in coding if character.isprintable()).strip()
    name = _CODEC_NAMES.get(coding) or (repr(printable[:32]) if printable else "without a name")
    return UnsupportedCodecError(f"the video codec {name} is not supported; supported are {CODECS}")
