"""The public names of the SDK, beside ``deepfakestream.verification``; everything else in the package is internal."""

from deepfakestream.client import Client
from deepfakestream.errors import DeepfakeStreamError
from deepfakestream.results import Delivery, Face, Job, JudgedPerson, Model, Person, Review, Segment, Share, Suspicion
from deepfakestream.webhooks import verify_webhook

__all__ = [
    "Client",
    "DeepfakeStreamError",
    "Delivery",
    "Face",
    "Job",
    "JudgedPerson",
    "Model",
    "Person",
    "Review",
    "Segment",
    "Share",
    "Suspicion",
    "verify_webhook",
]
