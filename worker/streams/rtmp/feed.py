"""What a publisher sends, as a feed for ffmpeg: a container of FLV with the video alone."""

from typing import Final

from shared.errors import SourceUnreachableError, UnsupportedMediaError
from worker.streams.feeds import BLOCK_BYTES, POLL_S, Feed, Run
from worker.streams.rtmp.connection import Connection, ConnectionLostError
from worker.streams.rtmp.errors import ProtocolError
from worker.streams.rtmp.session import Picture, Unpublished

HEADER: Final = b"FLV\x01\x01\x00\x00\x00\x09\x00\x00\x00\x00"
"""Version 1, with video only, and the length of the tag before the first."""
_VIDEO: Final = 9
_HEADER_BYTES: Final = 11


class PushFeed(Feed):
    """
    A feed of the pictures of one publisher, from its first to its last.

    Args:
        connection: A connection whose key was accepted. The feed closes it.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def read(self) -> None:
        """Read until the publisher says that it has ended. Raises DeepfakeStreamError if it is lost."""
        try:
            if not self.put(Run("flv")) or not self.put(HEADER):
                return
            is_over = False
            while not self.is_stopped and not is_over:
                tags = bytearray()
                for event in self._connection.events(POLL_S):
                    is_over |= isinstance(event, Unpublished)
                    tags += write_tag(event) if isinstance(event, Picture) else b""
                if not self._put_tags(bytes(tags)):
                    return
                self.sleep(self._connection.pause_s)
        except ConnectionLostError as error:
            raise SourceUnreachableError("the connection to the publisher was lost") from error
        except ProtocolError as error:
            raise UnsupportedMediaError(f"the publisher's connection was ended: {error}") from error
        finally:
            self._connection.close()

    def _put_tags(self, tags: bytes) -> bool:
        # The queue is bounded by the number of its blocks.
        return all(self.put(tags[start : start + BLOCK_BYTES]) for start in range(0, len(tags), BLOCK_BYTES))


def write_tag(picture: Picture) -> bytes:
    """Write a tag of FLV."""
    time_ms = picture.timestamp_ms
    header = bytes([_VIDEO]) + len(picture.data).to_bytes(3, "big") + (time_ms & 0xFFFFFF).to_bytes(3, "big")
    header += bytes([time_ms >> 24 & 0xFF, 0, 0, 0])
    return header + picture.data + (_HEADER_BYTES + len(picture.data)).to_bytes(4, "big")
