"""Errors of a conversation over RTMP."""


class ProtocolError(Exception):
    """The peer sent what RTMP does not allow, or what exceeds a limit. The message says what, without quoting it."""
