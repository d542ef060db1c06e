"""Progress of a scan on standard error: a line for each file that is being worked on, and one for all of them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from deepfakestream.terminal import make_console, pluralize, printable

MAX_LABEL = 40
"""Characters of a file's name beside its bar."""


class FileProgress:
    """The line of one file."""

    def __init__(self, progress: Progress, lock: threading.RLock, source: str) -> None:
        self._progress = progress
        self._lock = lock
        with lock:
            self._task = progress.add_task(_label(source), total=1.0, step="waiting")

    def show(self, step: str, completed: float, total: float = 1.0) -> None:
        """Show that *completed* of *total* is done, and what is being done."""
        with self._lock:
            self._progress.update(self._task, completed=completed, total=total, step=printable(step))

    def end(self) -> None:
        """Take the line away."""
        with self._lock:
            self._progress.remove_task(self._task)


class ScanProgress:
    """
    A context manager that shows progress if standard error is a terminal.

    There are never more lines than files that are worked on at the same time, and one, however many files there are.

    Args:
        files: The number of all files.
        has_total: Show the line for all files even if there is only one.
    """

    def __init__(self, files: int, *, has_total: bool = False) -> None:
        console = make_console(stderr=True)
        self._is_shown = console.is_terminal
        self._files = files
        self._done = 0
        # Held by every change of the lines, since a change that draws them must not come while they are hidden.
        self._lock = threading.RLock()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[step]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            disable=not self._is_shown,
        )
        self._progress.live = self._make_live()
        has_total = has_total or files > 1
        self._total = self._progress.add_task("all files", total=files, step=self._step()) if has_total else None

    def __enter__(self) -> Self:
        if self._is_shown:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown:
            self._progress.stop()

    @contextmanager
    def file(self, source: str) -> Iterator[FileProgress]:
        """Show a line for *source* while it is being worked on."""
        line = FileProgress(self._progress, self._lock, source)
        try:
            yield line
        finally:
            line.end()
            with self._lock:
                self.show_done(self._done + 1)

    def show_done(self, files: int) -> None:
        """Show that so many files are done, for files without lines of their own."""
        with self._lock:
            self._done = files
            if self._total is not None:
                self._progress.update(self._total, completed=self._done, step=self._step())

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the lines off the terminal while something else is printed, perhaps on the same terminal."""
        if not self._is_shown:
            yield
            return
        with self._lock:
            self._progress.stop()
            try:
                yield
            finally:
                # The old one would move the cursor up by its last lines, over what was printed.
                self._progress.live = self._make_live()
                self._progress.start()

    def _make_live(self) -> Live:
        return Live(
            console=self._progress.console,
            transient=True,
            get_renderable=self._progress.get_renderable,
            # Otherwise results for standard output would be written to standard error.
            redirect_stdout=False,
        )

    def _step(self) -> str:
        return f"{self._done} of {pluralize(self._files, 'file')}"


def _label(source: str) -> str:
    return printable(source if len(source) <= MAX_LABEL else f"…{source[1 - MAX_LABEL :]}")
