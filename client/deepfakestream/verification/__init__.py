"""Evidence bundles: checked offline, without the service that made them."""

from deepfakestream.verification.checking import verify_bundle
from deepfakestream.verification.findings import Check, Verification, describe_verification

__all__ = ["Check", "Verification", "describe_verification", "verify_bundle"]
