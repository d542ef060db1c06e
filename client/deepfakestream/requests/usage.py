"""The request for usage."""

from datetime import date

from deepfakestream.calls import Call
from deepfakestream.requests.base import Requests, parse_document
from deepfakestream.usage import Usage


class UsageRequests(Requests):
    """The request for usage."""

    @Call
    async def usage(self, first: date | None = None, last: date | None = None) -> Usage:
        """
        Get what was analysed for you, by day (UTC) and key.

        Args:
            first: The first day; 29 days before the last one if not given.
            last: The last day, included; today if not given.

        Raises:
            InvalidRequestError: *first* is after *last*, or these are more than 366 days.
        """
        days = {"from": first, "to": last}
        params = {name: f"{day:%Y-%m-%d}" for name, day in days.items() if day is not None}
        return parse_document(Usage, await self._transport.call("GET", "/v1/usage", params=params))
