"""
State folder of an embedded stack: the files by which commands find a stack that runs on this machine, and its key.

The server starts the stack (``deepfakestream up``) and writes these files through this module; the command line reads
them. Both sides of the format are here and nowhere else.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from deepfakestream.addresses import is_loopback, parse_origin
from deepfakestream.errors import AddressError, MissingPartError

STATE_VARIABLE: Final = "DEEPFAKESTREAM_STATE"
CONNECTION_FILE: Final = "connection.json"
"""Within the state folder: address and settings of the stack, while it runs."""
LOCK_FILE: Final = "lock"
"""Within the state folder: locked by ``flock`` while a stack runs."""
API_KEY_FILE: Final = Path("secrets", "api-key")
"""Within the state folder: the API key that the stack created for itself."""
RUNNING_FOLDER: Final = "running"
"""Within the user's default state folder: a file for each running stack, which holds the path of its state folder."""
PART_PREFIX: Final = "."
"""Of the name of an entry that is being written."""
PART_EXPIRES_S: Final = 60.0
"""Age from which such an entry is taken for one of a stack that was killed meanwhile; writing takes no time."""

OPERATOR_VARIABLES: Final = (
    "DEEPFAKESTREAM_CONFIG",
    "DEEPFAKESTREAM_DATABASE__URL",
    "DEEPFAKESTREAM_BROKER__URL",
    "DEEPFAKESTREAM_STORAGE__URL",
)
"""Settings that the server's commands need to work on a stack: Unix sockets and folders, and no secret."""


def default_state_folder() -> Path:
    """Return the user's default state folder, which the embedded stack uses unless another folder is named."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "deepfakestream"


def choose_state_folder(given: Path | None) -> Path:
    """
    Choose the folder in which a stack is started.

    Args:
        given: The folder that an option names; otherwise the environment may name one, and the default is the user's.
    """
    return (explicit_state_folder(given) or default_state_folder()).absolute()


def explicit_state_folder(given: Path | None) -> Path | None:
    """Return the folder that an option (*given*) or else the environment names; None if neither does."""
    named = os.environ.get(STATE_VARIABLE)
    return given or (Path(named) if named else None)


def find_state_folder(given: Path | None, *, option: str = "--state") -> Path:
    """
    Find the state folder that a command is about.

    It is the one given, or named by the environment, or that of the running stack; the user's default if none runs.

    Args:
        given: The folder that an option names.
        option: What the error calls that option.

    Raises:
        MissingPartError: Several stacks run, and neither an option nor the environment chooses one.
    """
    if (chosen := explicit_state_folder(given)) is not None:
        return chosen.absolute()
    running = running_state_folders()
    if len(running) > 1:
        listed = ", ".join(str(state) for state in running)
        raise MissingPartError(f"several services run on this machine: choose one with {option}, of {listed}")
    return running[0] if running else default_state_folder().absolute()


def running_state_folders() -> list[Path]:
    """List the state folders of the running stacks that can be found; the user's default folder comes first."""
    try:
        default = default_state_folder().absolute()
        named = [state for _, state in _read_announced(default / RUNNING_FOLDER)]
    except (OSError, RuntimeError, ValueError):
        return []
    return [state for state in dict.fromkeys([default, *named]) if stack_url(state) is not None]


@contextlib.contextmanager
def announce_stack(state: Path) -> Iterator[bool]:
    """
    Let commands find the stack whose state is in *state*, for as long as the context lasts.

    Yields:
        Whether commands can find it: False if the user's default state folder cannot be written, so that commands
        have to name *state*.
    """
    name = hashlib.sha256(os.fsencode(state)).hexdigest()[:16]
    try:
        folder = default_state_folder() / RUNNING_FOLDER
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for entry, announced in _read_announced(folder):
            # A stack that was killed could not remove its entry.
            if stack_url(announced) is None:
                entry.unlink(missing_ok=True)
        _remove_expired_parts(folder)
        # Not by its name at first: a stack that starts meanwhile would take an empty entry for that of a killed stack.
        part = folder / f"{PART_PREFIX}{name}"
        part.write_bytes(os.fsencode(state))
        part.replace(folder / name)
    except (OSError, RuntimeError):
        yield False
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):
            (folder / name).unlink()


def _read_announced(folder: Path) -> list[tuple[Path, Path]]:
    """Return the entries in *folder*, by name, with the state folder that each names. Any stack may remove one."""
    found = []
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        if entry.name.startswith(PART_PREFIX):
            continue
        with contextlib.suppress(FileNotFoundError):
            found.append((entry, Path(os.fsdecode(entry.read_bytes()))))
    return found


def _remove_expired_parts(folder: Path) -> None:
    """Remove what stacks left in *folder* that were killed while they wrote their entry."""
    for part in folder.glob(f"{PART_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > PART_EXPIRES_S:
                part.unlink()


def write_connection(state: Path, url: str, environment: Mapping[str, str]) -> None:
    """
    Write the connection file of a stack that has started.

    Args:
        state: State folder of the stack.
        url: Address of its API.
        environment: Settings of its processes, of which only OPERATOR_VARIABLES are written.
    """
    settings = {name: environment[name] for name in OPERATOR_VARIABLES if name in environment}
    (state / CONNECTION_FILE).write_text(json.dumps({"url": url, "environment": settings}))


def remove_connection(state: Path) -> None:
    """Remove the connection file of a stack that stops."""
    (state / CONNECTION_FILE).unlink(missing_ok=True)


def stack_url(state: Path) -> str | None:
    """Return the address of the stack whose state is in *state*; None unless it runs."""
    url = _read_connection(state).get("url")
    # A stack listens on loopback, so its key is sent to no other address, whatever the file contains.
    with contextlib.suppress(AddressError):
        if isinstance(url, str) and is_loopback(parse_origin(url)[1]):
            return url
    return None


def stack_api_key(state: Path) -> str | None:
    """Return the key that the stack with its state in *state* created for itself; None if it cannot be read."""
    try:
        return (state / API_KEY_FILE).read_text().strip() or None
    except (OSError, ValueError):
        return None


def operator_environment(state: Path) -> dict[str, str]:
    """Return the settings of the stack that runs with its state in *state*; empty if none runs there."""
    found = _read_connection(state).get("environment")
    if not isinstance(found, dict):
        return {}
    return {name: found[name] for name in OPERATOR_VARIABLES if isinstance(found.get(name), str)}


def _read_connection(state: Path) -> dict[str, object]:
    """Read the connection file; empty unless the stack runs, since after a kill its port may be another program's."""
    try:
        if not _is_locked(state / LOCK_FILE):
            return {}
        found = json.loads((state / CONNECTION_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_locked(path: Path) -> bool:
    """Whether a running stack holds the lock at *path*."""
    try:
        import fcntl
    except ImportError:
        # Systems without it cannot run a stack.
        return False
    with path.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
