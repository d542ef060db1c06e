"""ffmpeg's command lines for streams. It takes the video track out of its container; nothing is decoded for long."""

from typing import Final

from worker.media.ffmpeg import DECODERS, find_ffmpeg

GAP_S: Final = 100
"""What takes the place of a jump of the clock, in either direction, so that the cutter recognises it."""
LONGEST_GAP_S: Final = 10
"""A gap up to this length is a pause of the source; anything else between two packets is a jump of its clock."""

REORDERED_S: Final = 2
"""A step back up to this length comes from the order of decoding."""

# RTSP leaves the time of the first picture open. The time of its decoding is at most a few pictures later.
_FIRST = "0.2/TB"
_NOW = f"if(eq(PTS,NOPTS),DTS-if(N,0,{_FIRST}),PTS)"
_BEFORE = f"if(eq(PREV_INPTS,NOPTS),PREV_INDTS-if(eq(N,1),{_FIRST},0),PREV_INPTS)"
_STEP = f"if(between({_NOW}-{_BEFORE},-{REORDERED_S}/TB,{LONGEST_GAP_S}/TB),{_NOW}-{_BEFORE},{GAP_S}/TB)"
_TIME = f"if(N,PREV_OUTPTS+{_STEP},{_NOW})"
# ffmpeg's own correction of jumps would hide them, and its muxer would squeeze a clock that went back to steps of 1 ms.
# Matroska has no times of decoding; they only have to grow and to be earlier than those of presentation.
_EARLIER = f"{_TIME}-{REORDERED_S + 1}/TB"
_CLOCK = f"setts=pts='{_TIME}':dts='if(N,max(PREV_OUTDTS+1,{_EARLIER}),{_EARLIER})'"

_FLAGS = ("-hide_banner", "-nostats", "-loglevel", "info", "-copyts")
_LIMITS = ("-codec_whitelist", DECODERS, "-threads", "1", "-probesize", "2000000", "-analyzeduration", "2000000")
_OUTPUT = (
    *("-map", "0:V:0", "-c", "copy", "-bsf:v", _CLOCK, "-avoid_negative_ts", "make_zero", "-flush_packets", "1"),
    # A cluster is written when the next one begins, so each has one picture.
    *("-f", "matroska", "-live", "1", "-cluster_time_limit", "1", "-write_crc32", "0", "pipe:1"),
)

PROTOCOLS: Final = {
    "rtsp": ("pipe,rtsp,rtp,tcp", "concat,rtsp,sdp,rtp,mpegts"),
    "rtmp": ("pipe,rtmp,tcp", "concat,flv,live_flv"),
    "srt": ("pipe,srt,udp", "concat,mpegts"),
}
"""Scheme → protocols and demuxers that ffmpeg may use for it."""


def read_from_pipe(demuxer: str) -> list[str]:
    """Build the command that reads a container from standard input."""
    return [
        *(find_ffmpeg(), *_FLAGS, *_LIMITS),
        *("-protocol_whitelist", "pipe", "-format_whitelist", demuxer, "-f", demuxer, "-i", "pipe:0", *_OUTPUT),
    ]


def read_from_script(scheme: str) -> list[str]:
    """
    Build the command that has a conversation over the network: with the server that a script in standard input names.

    The address and the credentials are in the script, since everybody on the machine can read command lines.
    """
    protocols, demuxers = PROTOCOLS[scheme]
    return [
        *(find_ffmpeg(), *_FLAGS, *_LIMITS, "-protocol_whitelist", protocols, "-format_whitelist", demuxers),
        *("-f", "concat", "-safe", "0", "-auto_convert", "0", "-i", "pipe:0", *_OUTPUT),
    ]


def write_script(url: str, options: dict[str, str]) -> bytes:
    """Write the script for ``read_from_script``: one file at *url*, with ffmpeg's *options*."""
    wanted = {"probesize": "2000000", "analyzeduration": "2000000", **options}
    lines = ["ffconcat version 1.0", f"file {_quote(url)}", *(f"option {k} {_quote(v)}" for k, v in wanted.items())]
    return ("\n".join(lines) + "\n").encode()


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
