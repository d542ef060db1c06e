"""The pictures of README and docs/tutorial.md: its steps are taken as it says, and what is seen is drawn."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

from deepfakestream import Client
from PIL import Image
from playwright.sync_api import Browser, FloatRect, Page, ViewportSize

from tests.browser.chromium import (
    drop_file,
    enter_key,
    open_newest_report,
    opened_tab,
    wait_for_faces,
    wait_for_result,
)
from tests.browser.terminal import draw_terminal, run_in_terminal
from tests.servers import state_folder

ROOT: Final = Path(__file__).resolve().parents[2]
TUTORIAL: Final = ROOT / "docs" / "tutorial.md"
BIN: Final = Path(sys.executable).parent
STATE: Final = ".deepfakestream"
SHOWN_FOLDER: Final = "/home/you/DeepfakeStream"
"""What stands in pictures for the temporary folder in which the steps are taken."""
RECEIVER_PORT: Final = 9000
FILES_PORT: Final = 9001
REPORT: Final = ViewportSize(width=840, height=1000)
LIST: Final = ViewportSize(width=1060, height=1000)
SETTLE_MS: Final = 3000
START_S: Final = 180.0
COLOURS: Final = 128
"""A palette keeps pictures small; the video's background alone would need more than that."""


@dataclass(frozen=True)
class Desk:
    """Where the steps are taken."""

    folder: Path
    environment: dict[str, str]
    target: Path

    def draw(self, typed: str, picture: str) -> str:
        """Run what the tutorial says to type, and draw it; return what it printed."""
        command, *arguments = typed.split()
        shown = run_in_terminal([str(BIN / command), *arguments], self.folder, self.environment)
        self.draw_text(typed, shown, picture)
        return shown

    def draw_text(self, title: str, shown: str, picture: str) -> None:
        """Draw what was printed elsewhere."""
        draw_terminal(title, shown.replace(str(self.folder), SHOWN_FOLDER), self.target / picture)

    @contextmanager
    def running(self, command: list[str], port: int) -> Iterator[Path]:
        """Run *command* until the context ends, once it listens on *port*; yield the file of what it prints."""
        log = self.folder / f"port-{port}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            _wait_until(lambda: _is_listening(port) or process.poll() is not None, f"{command} does not listen")
            if process.poll() is not None:
                raise RuntimeError(log.read_text())
            yield log
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def make_pictures(browser: Browser, target: Path) -> list[Path]:
    """
    Take the steps of the tutorial, from ``make demo`` on, and write all pictures below *target*.

    Returns:
        The pictures.
    """
    with state_folder() as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DEEPFAKESTREAM_")}
        environment |= {"PATH": f"{BIN}:{os.environ['PATH']}", "XDG_STATE_HOME": str(folder / "home")}
        environment |= {"PYTHONPATH": f"{ROOT}:{ROOT / 'client'}", "PYTHONUNBUFFERED": "1", "TERM": "xterm-256color"}
        # As ``make`` runs it; the title is what a person types.
        desk = Desk(folder, environment, target)
        demo = [str(BIN / "deepfakestream"), "--state", STATE, "demo"]
        desk.draw_text("make demo", run_in_terminal(demo, folder, environment), "tutorial/demo.svg")
        with _running_stack(desk) as url:
            scanned = desk.draw(f"deepfakestream scan {STATE}/demo/swapped.mp4", "scan.svg")
            [job_id] = re.findall(r"job +(\S+)", scanned)
            explained = desk.draw(f"deepfakestream explain {job_id} --out why", "tutorial/explain.svg")
            assert "person 0" in explained
            _draw_pages(desk, browser, url, job_id)
            _draw_webhook(desk)
            _draw_batch(desk)
            desk.draw("deepfakestream usage", "tutorial/usage.svg")
    return sorted([*target.glob("*.svg"), *target.glob("*.png"), *target.glob("tutorial/*")])


@contextmanager
def _running_stack(desk: Desk) -> Iterator[str]:
    """Run and draw ``make run``; yield the address of the service."""
    log = desk.folder / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(BIN / "deepfakestream"), "--state", STATE, "up"],
            cwd=desk.folder,
            env=desk.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until(lambda: "Ready." in log.read_text() or process.poll() is not None, "the service is not ready")
        said = log.read_text()
        found = re.search(r"API +(http://\S+)", said)
        if found is None:
            raise RuntimeError(said)
        desk.draw_text("make run", said, "tutorial/run.svg")
        yield found[1]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _draw_pages(desk: Desk, browser: Browser, url: str, job_id: str) -> None:
    """Drop the real video on the list of jobs, and open the report of the swapped one."""
    key = (desk.folder / STATE / "secrets" / "api-key").read_text().strip()
    video = desk.folder / STATE / "demo" / "real.mp4"
    with opened_tab(browser, viewport=LIST, color_scheme="light") as tab:
        page = tab.page
        enter_key(page, url, key)
        drop_file(page, video.name, video.read_bytes())
        open_newest_report(page)
        wait_for_result(page)
        page.goto(url)
        page.wait_for_selector("#jobs tr:nth-child(2)")
        _take(
            page, desk.target / "tutorial" / "page.png", height=_box(page, "#jobs")["y"] + _box(page, "#jobs")["height"]
        )
        with Client(url, key) as client:
            link = client.share(job_id).url
        assert link is not None
        page.set_viewport_size(REPORT)
        page.goto(link)
        wait_for_faces(page)
        page.click(".timeline a >> nth=2")
        page.wait_for_selector("#cursor.moved", state="attached")
        # The player shows for a moment that it is loading.
        page.wait_for_timeout(SETTLE_MS)
        page.evaluate("scrollTo(0, 0)")
        _take(page, desk.target / "report.png", height=_box(page, "h3:text-is('Suspicious times')")["y"])
        person = page.locator(".explained > li").first
        for image in person.locator("img").all():
            image.scroll_into_view_if_needed()
            image.evaluate("(one) => one.decode()")
        # The faces over time are left out. In a palette the small spots of the map would lose their colours.
        height = _box(page, ".explained .thumbnails >> nth=0")["y"] - _box(page, ".explained > li >> nth=0")["y"]
        _save(person.screenshot(), desk.target / "tutorial" / "heat-map.png", height=height, colours=None)


def _draw_webhook(desk: Desk) -> None:
    """Let the receiver of the tutorial get the webhook of a scan."""
    (desk.folder / "receiver.py").write_text(receiver_code())
    secret = (desk.folder / STATE / "secrets" / "webhook-secret").read_text().strip()
    receiving = Desk(desk.folder, desk.environment | {"WEBHOOK_SECRET": secret}, desk.target)
    with receiving.running([sys.executable, "receiver.py"], RECEIVER_PORT) as log:
        scan = f"deepfakestream scan {STATE}/demo/real.mp4 --webhook-url http://127.0.0.1:{RECEIVER_PORT}/"
        run_in_terminal([str(BIN / "deepfakestream"), *scan.split()[1:]], desk.folder, desk.environment)
        _wait_until(lambda: "job.succeeded" in log.read_text(), "no webhook has come")
        desk.draw_text("python receiver.py", log.read_text(), "tutorial/webhook.svg")


def _draw_batch(desk: Desk) -> None:
    """Serve the two videos, and submit their addresses as one batch."""
    serve = [sys.executable, "-m", "http.server", str(FILES_PORT), "--bind", "127.0.0.1"]
    with desk.running([*serve, "--directory", f"{STATE}/demo"], FILES_PORT):
        addresses = " ".join(f"http://127.0.0.1:{FILES_PORT}/{name}.mp4" for name in ("real", "swapped"))
        desk.draw(f"deepfakestream batch submit {addresses}", "tutorial/batch.svg")


def receiver_code() -> str:
    """Return the receiver of webhooks as it stands in the tutorial."""
    [code] = re.findall(r"```python\n(# receiver\.py\n.*?)```", TUTORIAL.read_text(), re.DOTALL)
    return str(code)


def _take(page: Page, target: Path, *, height: float) -> None:
    """Take the picture of a page from its top to *height* pixels below."""
    assert page.viewport_size is not None
    clip = FloatRect(x=0, y=0, width=page.viewport_size["width"], height=height)
    _save(page.screenshot(full_page=True, clip=clip), target)


def _save(taken: bytes, target: Path, *, height: float | None = None, colours: int | None = COLOURS) -> None:
    """Write a picture as PNG, down to *height* pixels from its top, with a palette of so many *colours*."""
    target.parent.mkdir(parents=True, exist_ok=True)
    image = Image.open(BytesIO(taken)).convert("RGB")
    if height is not None:
        image = image.crop((0, 0, image.width, int(height)))
    if colours is not None:
        image = image.quantize(colours, dither=Image.Dither.NONE, kmeans=2)
    image.save(target, optimize=True)


def _is_listening(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def _box(page: Page, selector: str) -> FloatRect:
    found = page.locator(selector).bounding_box()
    assert found is not None
    return found


def _wait_until(holds: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + START_S
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(0.1)
