"""Verification of webhooks, which are signed as Standard Webhooks specifies."""

import json
from collections.abc import Mapping
from typing import Any

from standardwebhooks import Webhook
from standardwebhooks.webhooks import EmptyWebhookSecretError
from standardwebhooks.webhooks import WebhookVerificationError as NotVerifiedError

from deepfakestream.errors import WebhookVerificationError


def verify_webhook(headers: Mapping[str, str], body: bytes | str, secret: str) -> dict[str, Any]:
    """
    Check that a webhook comes from the service and is recent.

    Args:
        headers: Headers of the request; names in upper or lower case.
        body: Body of the request, exactly as received.
        secret: The secret that was issued with the API key, ``whsec_…``.

    Returns:
        The event: ``type``, ``timestamp`` and, as ``data``, the job. The header ``webhook-id`` is the same in every
        repetition of an event, so that a receiver can ignore events that it has processed.

    Raises:
        WebhookVerificationError: The signature is wrong, the webhook is more than five minutes old, or *secret* is
            empty or not a valid secret.
    """
    if not secret or secret == "whsec_":  # noqa: S105 - the prefix alone is no secret
        raise WebhookVerificationError(
            "the webhook could not be verified: the secret is empty; give the one that came with the API key (whsec_…)"
        )
    lowered = {name.lower(): value for name, value in headers.items()}
    try:
        text = body.decode() if isinstance(body, bytes) else body
        Webhook(secret).verify(text, lowered)
        event = json.loads(text)
    except (NotVerifiedError, EmptyWebhookSecretError, ValueError, RecursionError) as error:
        raise WebhookVerificationError(f"the webhook could not be verified: {error}") from error
    if not isinstance(event, dict):
        raise WebhookVerificationError("the webhook could not be verified: its body is no JSON object")
    return event
