"""The SDK: one class whose methods are the requests of the API, each defined with its subject."""

from types import TracebackType
from typing import Self

from deepfakestream.requests.explanations import ExplanationRequests
from deepfakestream.requests.jobs import JobRequests
from deepfakestream.requests.reports import ReportRequests
from deepfakestream.requests.streams import StreamRequests
from deepfakestream.requests.submissions import SubmissionRequests
from deepfakestream.transport import Transport
from deepfakestream.webhooks import verify_webhook


class Client(SubmissionRequests, JobRequests, ReportRequests, ExplanationRequests, StreamRequests):
    """
    A client of a DeepfakeStream service.

    Args:
        base_url: Address of the service, such as ``https://deepfakes.example``.
        api_key: API key, ``dfs_…``.
        timeout_s: Limit in seconds of a single wait on the connection, not of a whole upload.
        retries: How often a request is sent again that got no answer, or 429, 502, 503 or 504. This is safe:
            submissions have an idempotency key, and a request that must not be processed twice is not sent again.

    Raises:
        AddressError: *base_url* is not the address of a service, or *api_key* cannot be a key.
        MissingPartError: The proxy or the certificates that the environment names cannot be used.
    """

    verify_webhook = staticmethod(verify_webhook)

    def __init__(self, base_url: str, api_key: str, *, timeout_s: float = 30.0, retries: int = 3) -> None:
        self._transport = Transport(base_url, api_key, timeout_s=timeout_s, retries=retries)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()
