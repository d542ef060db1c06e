"""What views work with: the collaborators that ``create_app`` was given."""

from dataclasses import dataclass
from threading import BoundedSemaphore

from flask import current_app

from api.config import APISettings
from api.endings import Endings
from api.readiness import Readiness
from api.signing import Keys
from api.timestamps import Stamp
from shared.db import SessionFactory
from shared.queues import Sender
from shared.storage import Storage


@dataclass(frozen=True, slots=True)
class Services:
    """Collaborators of one api process."""

    settings: APISettings
    sessions: SessionFactory
    storage: Storage
    sender: Sender
    endings: Endings
    """Of jobs; requests that wait hear of them."""
    readiness: Readiness
    waiting: BoundedSemaphore
    """Held by requests that wait for a job, so that they cannot take every thread."""
    uploading: BoundedSemaphore
    """Held by large uploads."""
    small_uploading: BoundedSemaphore
    """Held by small uploads."""
    bundling: BoundedSemaphore
    """Held by evidence bundles while they are sent."""
    evidence_keys: Keys
    """Sign evidence bundles."""
    stamp: Stamp
    """Gives evidence bundles their time stamps."""


def current_services() -> Services:
    """Return the collaborators of the current application."""
    found: Services = current_app.extensions["deepfakestream"]
    return found
