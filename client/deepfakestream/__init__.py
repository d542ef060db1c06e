"""What users of the package import; everything else is internal."""

from deepfakestream.client import Client
from deepfakestream.errors import DeepfakeStreamError
from deepfakestream.results import Delivery, Face, Job, Model, Person, Segment
from deepfakestream.webhooks import verify_webhook

__all__ = [
    "Client",
    "DeepfakeStreamError",
    "Delivery",
    "Face",
    "Job",
    "Model",
    "Person",
    "Segment",
    "verify_webhook",
]
