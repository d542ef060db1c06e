"""Pictures of commands in a terminal: run as a person sees them, and drawn as SVG."""

import contextlib
import fcntl
import io
import os
import pty
import selectors
import struct
import subprocess
import termios
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

COLUMNS: Final = 100
SVG: Final = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, monospace; font-size: {char_height}px; \
line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: arial; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""Rich's form with the fonts of the reader's machine: an SVG in a page loads no others."""


def run_in_terminal(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """
    Run *command* in *folder*, and return what it says on both outputs, in the order in which it comes.

    Standard output is a terminal of ``COLUMNS`` columns, so that there are colours. Standard error is a pipe, so that
    there are no lines of progress, which are gone at the end.

    Raises:
        subprocess.CalledProcessError: The command failed.
    """
    ours, theirs = pty.openpty()
    shown = bytearray()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    with (
        os.fdopen(ours, "rb", buffering=0) as terminal,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE
        ) as process,
        selectors.DefaultSelector() as outputs,
    ):
        os.close(theirs)
        assert process.stderr is not None
        for output in (terminal, process.stderr):
            outputs.register(output, selectors.EVENT_READ)
        while outputs.get_map():
            for ready, _ in outputs.select():
                block = b""
                # The end of the other side of a terminal is an error on Linux.
                with contextlib.suppress(OSError):
                    block = os.read(ready.fd, 65536)
                shown += block
                if not block:
                    outputs.unregister(ready.fileobj)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, bytes(shown))
    return shown.replace(b"\r\n", b"\n").decode()


def draw_terminal(title: str, shown: str, target: Path) -> None:
    """Write a picture of the text *shown*, which may have colours, in a window with this *title*."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, legacy_windows=False)
    lines = [line.rstrip() for line in shown.strip("\n").splitlines()]
    console.print(Text.from_ansi("\n".join(lines)), highlight=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    drawn = console.export_svg(title=title, code_format=SVG, unique_id=target.stem)
    target.write_text("".join(f"{line.rstrip()}\n" for line in drawn.splitlines()))
