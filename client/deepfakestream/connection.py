"""
Which service the command line talks to, and by which key.

Options say so, then the environment, then the stack that runs on this machine.

A key is sent to the address that it was made for, and to no other. The stack's own key goes to the stack alone, while
it runs; a key that a person gives goes to the address that they give with it.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deepfakestream.addresses import Origin, is_loopback, origin
from deepfakestream.errors import AddressError, MissingKeyError, MissingPartError

URL_VARIABLE: Final = "DEEPFAKESTREAM_URL"
KEY_VARIABLE: Final = "DEEPFAKESTREAM_API_KEY"
STATE_VARIABLE: Final = "DEEPFAKESTREAM_STATE"
CONNECTION_FILE: Final = "connection.json"
"""Written by ``up`` into its state folder while it runs."""
LOCK_FILE: Final = "lock"
"""In the state folder; locked while a stack runs."""
API_KEY_FILE: Final = Path("secrets", "api-key")
"""Within the state folder: the key that the stack made for itself."""
RUNNING_FOLDER: Final = "running"
"""Within the user's own state folder: a file for each stack that runs, with the path of its state."""

OPERATOR_VARIABLES: Final = (
    "DEEPFAKESTREAM_CONFIG",
    "DEEPFAKESTREAM_DATABASE__URL",
    "DEEPFAKESTREAM_BROKER__URL",
    "DEEPFAKESTREAM_STORAGE__URL",
)
"""What a server's commands need to work on a stack: Unix sockets and folders, and no secret."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A service and a key to it."""

    url: str
    api_key: str


def home_state() -> Path:
    """The user's own folder of state, in which the embedded stack is unless another folder is named."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "deepfakestream"


def own_state(given: Path | None) -> Path:
    """The folder in which a stack is to be started: the one given, or named by the environment, or the user's own."""
    return (_chosen_state(given) or home_state()).absolute()


def _chosen_state(given: Path | None) -> Path | None:
    named = os.environ.get(STATE_VARIABLE)
    return given or (Path(named) if named else None)


@contextlib.contextmanager
def announced(state: Path) -> Iterator[bool]:
    """
    Let commands find the stack with its state in *state* while the context lasts.

    Yields:
        Whether they can: False if the user's own folder cannot be written, so that they have to name the folder.
    """
    name = hashlib.sha256(os.fsencode(state)).hexdigest()[:16]
    try:
        folder = home_state() / RUNNING_FOLDER
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for entry in folder.iterdir():
            # Left by a stack that was killed.
            if _stack_address(Path(os.fsdecode(entry.read_bytes()))) is None:
                entry.unlink(missing_ok=True)
        (folder / name).write_bytes(os.fsencode(state))
    except (OSError, RuntimeError):
        yield False
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):
            (folder / name).unlink()


def find_state(given: Path | None) -> Path:
    """
    The state folder that a command is about.

    It is the one given, or named by the environment, or that of the stack that runs; the user's own if none does.

    Raises:
        MissingPartError: Several stacks run, and nothing says which one is meant.
    """
    if (chosen := _chosen_state(given)) is not None:
        return chosen.absolute()
    running = _running_states()
    if len(running) > 1:
        listed = ", ".join(str(state) for state in running)
        raise MissingPartError(f"several services run on this machine: choose one with --state, of {listed}")
    return running[0] if running else home_state().absolute()


def operator_environment(state: Path) -> dict[str, str]:
    """The settings of the stack that runs with its state in *state*; none if none does."""
    found = _read_connection(state).get("environment")
    if not isinstance(found, dict):
        return {}
    return {name: found[name] for name in OPERATOR_VARIABLES if isinstance(found.get(name), str)}


def find_connection(url: str | None, api_key: str | None, state: Path | None) -> Connection:
    """
    Decide which service to talk to, and by which key.

    Args:
        url: As an option gives it; else the environment may.
        api_key: As an option gives it; else the environment may.
        state: As an option gives it; else the environment may, or the stack that runs is found.

    Raises:
        AddressError: The address is none.
        MissingKeyError: No key is known for the address.
        MissingPartError: Nothing says which service.
    """
    named_url, named_key = os.environ.get(URL_VARIABLE), os.environ.get(KEY_VARIABLE)
    address = url or named_url
    if not address:
        return _own_connection(find_state(state), api_key or named_key)
    wanted = origin(address)
    if api_key:
        return Connection(address, api_key)
    is_for_another = bool(url and named_url) and not _has_origin(named_url or "", wanted)
    if named_key and not is_for_another:
        return Connection(address, named_key)
    known = _known_keys(state)
    if wanted in known:
        return Connection(address, known[wanted])
    reasons = [
        f"that of {_shown(found)}, of the service on this machine, is sent to no other address" for found in known
    ]
    if named_key:
        reasons.append(f"{KEY_VARIABLE} is for {URL_VARIABLE}, which is another one")
    more = f" ({'; '.join(reasons)})" if reasons else ""
    raise MissingKeyError(
        f"no API key is known for {_shown(wanted)}{more}: give the key of that service with --api-key or {KEY_VARIABLE}"
    )


def _own_connection(state: Path, api_key: str | None) -> Connection:
    """The stack that runs with its state in *state*, by its own key unless a person gave another."""
    found = _stack_address(state)
    try:
        key = api_key or (state / API_KEY_FILE).read_text().strip()
    except (OSError, ValueError):
        key = ""
    if found is None or not key:
        raise MissingPartError(
            f"no service to talk to: start one with 'deepfakestream up', or set {URL_VARIABLE} and {KEY_VARIABLE}"
        )
    return Connection(found, key)


def _known_keys(state: Path | None) -> dict[Origin, str]:
    """The keys of the stacks that run here, by the origin for which each was made."""
    chosen = _chosen_state(state)
    keys = {}
    for folder in [chosen.absolute()] if chosen is not None else _running_states():
        with contextlib.suppress(MissingPartError):
            found = _own_connection(folder, None)
            keys[origin(found.url)] = found.api_key
    return keys


def _running_states() -> list[Path]:
    """State folders of the stacks that run here, as far as they can be found: the user's own first."""
    try:
        own = home_state().absolute()
        entries = sorted((own / RUNNING_FOLDER).iterdir()) if (own / RUNNING_FOLDER).is_dir() else []
        named = [Path(os.fsdecode(entry.read_bytes())) for entry in entries]
    except (OSError, RuntimeError, ValueError):
        return []
    return [state for state in dict.fromkeys([own, *named]) if _stack_address(state) is not None]


def _stack_address(state: Path) -> str | None:
    """Where the stack with its state in *state* answers; None unless it runs."""
    url = _read_connection(state).get("url")
    # A stack listens on loopback: its key goes nowhere else, whatever a file says.
    with contextlib.suppress(AddressError):
        if isinstance(url, str) and is_loopback(origin(url)[1]):
            return url
    return None


def _read_connection(state: Path) -> dict[str, object]:
    """What ``up`` wrote; nothing once it has ended, though it were killed: its port may be another program's by now."""
    try:
        if not _is_locked(state / LOCK_FILE):
            return {}
        found = json.loads((state / CONNECTION_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_locked(path: Path) -> bool:
    """Whether a stack that runs holds the lock at *path*."""
    try:
        import fcntl
    except ImportError:
        # The stack runs on systems that have it.
        return False
    with path.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _has_origin(url: str, wanted: Origin) -> bool:
    try:
        return origin(url) == wanted
    except AddressError:
        return False


def _shown(found: Origin) -> str:
    scheme, host, port = found
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
