"""Values of ``Retry-After`` and what is right to make of them, for every parser of the project."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

RETRY_AFTER = [
    ("7", 7.0),
    ("0", 0.0),
    ("²", None),
    ("١٢", None),
    ("-1", None),
    ("1.5", None),
    ("1e9", None),
    ("9" * 400, None),
    ("9" * 5000, None),
    ("", None),
    ("soon", None),
    ("7, 8", None),
    ("Wed, 99 Foo 2026 99:99:99 GMT", None),
    ("Wed, 32 Jan 2031 10:00:00 GMT", None),
    ("Wed, 01 Jan 2031 99:99:99 GMT", None),
    ("Wed, 01 Jan 99999 00:00:00 GMT", None),
    # Python's reader of dates raises OverflowError for this one, and not ValueError.
    ("Fri, 31 Dec 9999 23:59:59 -2359777777777777", None),
    ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
    ("Sunday, 06-Nov-94 08:49:37 GMT", 0.0),
    ("Sun Nov  6 08:49:37 1994", 0.0),
]
"""What a server sends, and the seconds; None where it is to be ignored (RFC 9110, section 10.2.3)."""


def cases() -> pytest.MarkDecorator:
    """Run a test with each ``value`` and its ``seconds``."""
    return pytest.mark.parametrize(
        ("value", "seconds"), RETRY_AFTER, ids=[value[:40] or "empty" for value, _ in RETRY_AFTER]
    )


def date_in(seconds: int) -> str:
    """A date so far ahead; negative for the past. Made when a test runs: made at collection, it ages meanwhile."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
