"""
Choice of the service that the command line and the SDK talk to, and of the API key.

Options of the command line, or arguments of the SDK, come first, then the environment, then the embedded stack that
runs on this machine.

A key is sent to the address that it was created for, and to no other. The stack's own key is sent to the stack alone,
while it runs; a key that a person gives is sent to the address that they give with it.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deepfakestream.addresses import Origin, parse_origin
from deepfakestream.embedded_state import (
    explicit_state_folder,
    find_state_folder,
    running_state_folders,
    stack_api_key,
    stack_url,
)
from deepfakestream.errors import AddressError, MissingKeyError, MissingPartError

URL_VARIABLE: Final = "DEEPFAKESTREAM_URL"
KEY_VARIABLE: Final = "DEEPFAKESTREAM_API_KEY"


@dataclass(frozen=True, slots=True)
class Connection:
    """A service and a key to it."""

    url: str
    api_key: str


def find_connection(
    url: str | None,
    api_key: str | None,
    state: Path | None,
    *,
    key_option: str = "--api-key",
    state_option: str = "--state",
) -> Connection:
    """
    Decide which service to talk to, and with which key.

    Args:
        url: Address that an option names; otherwise the environment may name one.
        api_key: Key that an option gives; otherwise the environment may give one.
        state: State folder that an option names; otherwise the environment may name one, or the running stack is found.
        key_option: What errors call the option of the key.
        state_option: What errors call the option of the state folder.

    Raises:
        AddressError: The address is not that of a service.
        MissingKeyError: No key is known for the address, or the one that an option gives is empty.
        MissingPartError: No service is named, and none runs on this machine.
    """
    if api_key == "":
        # Probably a variable that is not set. Another key instead could belong to somebody else.
        raise MissingKeyError(f"the key that {key_option} gives is empty; leave the option out to use another one")
    named_url, named_key = os.environ.get(URL_VARIABLE), os.environ.get(KEY_VARIABLE)
    address = url or named_url
    if not address:
        return _embedded_connection(find_state_folder(state, option=state_option), api_key or named_key)
    wanted = parse_origin(address)
    if api_key:
        return Connection(address, api_key)
    is_for_another = bool(url and named_url) and not _has_origin(named_url or "", wanted)
    if named_key and not is_for_another:
        return Connection(address, named_key)
    known = _embedded_keys(state)
    if wanted in known:
        return Connection(address, known[wanted])
    reasons = [
        f"that of {_format_origin(found)}, of the service on this machine, is sent to no other address"
        for found in known
    ]
    if named_key:
        reasons.append(f"{KEY_VARIABLE} is for {URL_VARIABLE}, which is another one")
    explanation = f" ({'; '.join(reasons)})" if reasons else ""
    raise MissingKeyError(
        f"no API key is known for {_format_origin(wanted)}{explanation}:"
        f" give the key of that service with {key_option} or {KEY_VARIABLE}"
    )


def _embedded_connection(state: Path, api_key: str | None) -> Connection:
    """Return the stack that runs with its state in *state*, with its own key unless a person gave another."""
    url, key = stack_url(state), api_key or stack_api_key(state)
    if url is None or not key:
        raise MissingPartError(
            "no service to talk to: start one with 'deepfakestream up', or with 'make run' in a checkout where that was"
            f" used before, or set {URL_VARIABLE} and {KEY_VARIABLE}"
        )
    return Connection(url, key)


def _embedded_keys(state: Path | None) -> dict[Origin, str]:
    """Return the keys of the stacks that run here, by the origin for which each was created."""
    chosen = explicit_state_folder(state)
    keys = {}
    for folder in [chosen.absolute()] if chosen is not None else running_state_folders():
        with contextlib.suppress(MissingPartError):
            found = _embedded_connection(folder, None)
            keys[parse_origin(found.url)] = found.api_key
    return keys


def _has_origin(url: str, wanted: Origin) -> bool:
    try:
        return parse_origin(url) == wanted
    except AddressError:
        return False


def _format_origin(found: Origin) -> str:
    scheme, host, port = found
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
