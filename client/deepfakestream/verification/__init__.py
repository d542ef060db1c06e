"""Evidence bundles: checked offline, without the service that made them."""

from deepfakestream.verification.checking import Check, Verification, describe_verification, verify_bundle

__all__ = ["Check", "Verification", "describe_verification", "verify_bundle"]
