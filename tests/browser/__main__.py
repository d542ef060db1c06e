"""
``python -m tests.browser docs/report.png``: take the picture of a report that the README shows.

Starts the embedded stack, scans the demonstration's swapped video through the pages in a real browser, and writes a
PNG of its report down to the timeline. Needs an installed Chromium.
"""

import sys
import tempfile
from io import BytesIO
from pathlib import Path

import click
from PIL import Image

from api.embedded.demo_videos import make_demo_videos
from api.embedded.stack import EmbeddedStack
from shared.commands import SETTINGS
from tests.browser.chromium import (
    drop_file,
    enter_key,
    find_chromium,
    open_newest_report,
    opened_tab,
    running_chromium,
    wait_for_faces,
    wait_for_result,
)
from tests.servers import free_port, state_folder

SIZE = {"width": 840, "height": 1000}
SETTLE_MS = 3000
COLOURS = 256
"""A palette keeps the file below 200 kB; the video's background alone would need more than that."""


@click.command(context_settings=SETTINGS, help=__doc__)
@click.argument("target", type=click.Path(path_type=Path))
def main(target: Path) -> None:
    """Take the picture of a report."""
    path = find_chromium()
    if path is None:
        sys.exit("no Chromium is installed")
    with tempfile.TemporaryDirectory() as folder:
        video = make_demo_videos(Path(folder))[1]
        with (
            state_folder() as state,
            EmbeddedStack(state, port=free_port(), flower_port=free_port(), push_port=free_port()) as stack,
            running_chromium(path) as browser,
            opened_tab(browser, viewport=SIZE, color_scheme="light") as tab,
        ):
            enter_key(tab.page, stack.url, stack.api_key_file.read_text().strip())
            drop_file(tab.page, video.name, video.read_bytes())
            open_newest_report(tab.page)
            wait_for_result(tab.page)
            wait_for_faces(tab.page)
            tab.page.click(".timeline a >> nth=2")
            tab.page.wait_for_selector("#cursor.moved", state="attached")
            # The player shows for a moment that it is loading.
            tab.page.wait_for_timeout(SETTLE_MS)
            tab.page.evaluate("scrollTo(0, 0)")
            bottom = tab.page.locator("h3:text-is('Suspicious times')").bounding_box()["y"]
            taken = tab.page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": SIZE["width"], "height": bottom})
    image = Image.open(BytesIO(taken)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    image.save(target, optimize=True)
    click.echo(f"{target}: {image.size[0]} × {image.size[1]} pixels, {target.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
