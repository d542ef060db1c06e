"""Access of views to the collaborators from ``create_app``."""

from dataclasses import dataclass
from threading import BoundedSemaphore

from flask import current_app

from api.config import APISettings
from api.listener import JobEndListener
from api.readiness import Readiness
from api.signing import Keys
from api.slots import KeyedSlots
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
    listener: JobEndListener
    """Wakes waiting requests when their jobs end."""
    readiness: Readiness
    waiting: BoundedSemaphore
    """Slots for requests that wait for a job, so that they cannot take every thread."""
    uploading: BoundedSemaphore
    """Slots for large uploads."""
    small_uploading: BoundedSemaphore
    """Slots for small uploads."""
    receiving: KeyedSlots
    """Slots for bodies that are sent to the address of one direct upload."""
    streaming: BoundedSemaphore
    """Slots for streams of progress, each of which also takes one for requests that wait."""
    bundling: BoundedSemaphore
    """Slots for evidence bundles that are being made."""
    setting_pdf: BoundedSemaphore
    """Slots for PDF reports that are being made."""
    viewing: BoundedSemaphore
    """Slots for media that is being sent to the pages of reports."""
    viewing_images: BoundedSemaphore
    """Slots for images of explanations that are being read for the pages of reports."""
    evidence_keys: Keys
    """Sign evidence bundles."""
    stamp: Stamp
    """Gives evidence bundles their time stamps."""


def current_services() -> Services:
    """Return the collaborators of the current application."""
    found: Services = current_app.extensions["deepfakestream"]
    return found
