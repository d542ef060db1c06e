"""
A small RTSP server (RFC 2326) for tests: one stream, interleaved in the connection, with HTTP's digest as its login.

ffmpeg packs the stream into RTP and describes it; the conversation alone is ours.
"""

import contextlib
import hashlib
import re
import socket
import struct
import subprocess
import tempfile
import threading
from pathlib import Path

from worker.media.ffmpeg import find_ffmpeg

REALM, NONCE = "camera", "5f3a"


class RTSPServer:
    """
    Context manager that serves the transport stream at *clip* in real time, once or without an end.

    ``login`` is ``name:password``.
    """

    def __init__(self, clip, *, login=None, redirect=None, is_endless=False):
        self.requests = []
        self._clip, self._login, self._redirect = clip, login, redirect
        self._is_endless, self._connection = is_endless, None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._end_connection()
        self._thread.join()

    def replace(self, clip):
        """Serve another clip, from the next connection on."""
        self._clip = clip
        self._end_connection()

    def _end_connection(self):
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connection = connection
            with connection, connection.makefile("rb") as lines, contextlib.suppress(OSError):
                self._converse(connection, lines)

    def _converse(self, connection, lines):
        while request := self._read(lines):
            method, url, headers = request
            self.requests.append((method, url))
            extra, body, status = "", b"", "200 OK"
            if self._redirect and method == "DESCRIBE":
                status, extra = "302 Found", f"Location: {self._redirect}\r\n"
            elif self._login and method != "OPTIONS" and not self._is_allowed(method, headers):
                status = "401 Unauthorized"
                extra = f'WWW-Authenticate: Digest realm="{REALM}", nonce="{NONCE}"\r\n'
            elif method == "DESCRIBE":
                body = self._describe()
                extra = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
            elif method == "SETUP":
                extra = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
            elif method == "PLAY":
                extra = "Session: 1\r\n"
            answer = f"RTSP/1.0 {status}\r\nCSeq: {headers['cseq']}\r\n{extra}\r\n"
            connection.sendall(answer.encode() + body)
            if method == "PLAY":
                self._play(connection)
                return

    def _read(self, lines):
        try:
            first = lines.readline().decode().split()
        except OSError:
            return None
        if len(first) < 2:
            return None
        headers = {}
        while (line := lines.readline().decode().strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return first[0], first[1], headers

    def _is_allowed(self, method, headers):
        given = dict(re.findall(r'(\w+)="([^"]*)"', headers.get("authorization", "")))
        name, _, password = self._login.partition(":")
        first = _md5(f"{name}:{REALM}:{password}")
        second = _md5(f"{method}:{given.get('uri')}")
        return given.get("response") == _md5(f"{first}:{NONCE}:{second}")

    def _command(self, port, description):
        loop = ["-stream_loop", "-1"] if self._is_endless else []
        command = [find_ffmpeg(), "-v", "error", "-re", *loop, "-i", str(self._clip), "-map", "0:v", "-c", "copy"]
        return [*command, "-f", "rtp", "-sdp_file", str(description), f"rtp://127.0.0.1:{port}"]

    def _describe(self):
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
            sink.bind(("127.0.0.1", 0))
            path = Path(folder) / "sdp"
            with subprocess.Popen(self._command(sink.getsockname()[1], path), stdin=subprocess.DEVNULL) as sender:
                sink.settimeout(10)
                sink.recv(2000)
                sender.kill()
            text = re.sub(r"m=video \d+", "m=video 0", path.read_text())
        return (text.replace("\n", "\r\n").replace("\r\r", "\r") + "a=control:track1\r\n").encode()

    def _play(self, connection):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink, tempfile.TemporaryDirectory() as folder:
            sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            sink.bind(("127.0.0.1", 0))
            sink.settimeout(0.3)
            command = self._command(sink.getsockname()[1], Path(folder) / "sdp")
            with subprocess.Popen(command, stdin=subprocess.DEVNULL) as sender:
                while True:
                    try:
                        data = sink.recv(2000)
                        connection.sendall(struct.pack(">BBH", 0x24, 0, len(data)) + data)
                    except TimeoutError:
                        if sender.poll() is not None:
                            return
                    except OSError:
                        sender.kill()
                        return


def _md5(text):
    return hashlib.md5(text.encode()).hexdigest()  # noqa: S324 - what the protocol prescribes
