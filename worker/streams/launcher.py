"""
Program that opens a socket in its own network namespace, hands it to its parent, and becomes ffmpeg.

A socket stays in the namespace in which it was made. The parent accepts ffmpeg's connections on it and passes the bytes
on to one address, so that ffmpeg can have a conversation with one server and reach nothing else. The socket listens at
the server's own address, which the loopback interface of the namespace takes on, so that ffmpeg's requests name it.

It is run by its path, with the standard library only.
"""

import fcntl
import os
import socket
import struct
import sys
from typing import Final

SIOCSIFADDR: Final = 0x8916
SIOCSIFFLAGS: Final = 0x8914
IFF_UP: Final = 1
LOOPBACK_INDEX: Final = 1


def main() -> None:
    """
    Open the socket, send it, and run the program.

    Arguments: number of the channel's file descriptor, ``tcp`` or ``udp``, ``private`` or ``shared`` namespace, the
    server's address, its port, and the program with its arguments.
    """
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    kind, network, address, port, program = sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]), sys.argv[6:]
    if network == "private":
        take_address(address)
    else:
        address, port = "127.0.0.1", 0
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as listener:
        listener.bind((address, port))
        if kind == "tcp":
            listener.listen(4)
        socket.send_fds(channel, [b"ready"], [listener.fileno()])
    channel.close()
    os.execv(program[0], program)  # noqa: S606 - no shell is wanted


def take_address(address: str) -> None:
    """Bring the loopback interface of this namespace up, with *address* in addition to its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
        if ":" not in address and not address.startswith("127."):
            packed = struct.pack("16sHH4s8x", b"lo:1", socket.AF_INET, 0, socket.inet_aton(address))
            fcntl.ioctl(control, SIOCSIFADDR, packed)
    if ":" in address and address != "::1":
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as control:
            packed = struct.pack("16sIi", socket.inet_pton(socket.AF_INET6, address), 128, LOOPBACK_INDEX)
            fcntl.ioctl(control, SIOCSIFADDR, packed)


if __name__ == "__main__":
    main()
