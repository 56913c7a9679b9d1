"""JSON objects, a line each, over a socket between processes of one user. Nothing is unpickled."""

import json
import os
import socket
import struct
from contextlib import suppress
from typing import Any, Final, final

LONGEST: Final = 1 << 16
"""Bytes of a line; a longer one ends the connection."""
_CREDENTIALS: Final = struct.Struct("3i")


def is_ours(place: socket.socket) -> bool:
    """Whether the process at the other end is this user's, by what the kernel says."""
    found = place.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(found)
    return bool(user == os.getuid())


@final
class Lines:
    """One end of a connection."""

    def __init__(self, place: socket.socket) -> None:
        self.socket, self._read = place, b""
        self.closed = False
        """Whether the other end is gone, or has sent what is no line of JSON."""

    def send(self, message: dict[str, Any]) -> None:
        """Sends it, if anybody is left to read it."""
        with suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, wait_s: float | None) -> list[dict[str, Any]]:
        """What has come, after `wait_s` seconds at most, or as soon as something does with None."""
        self.socket.settimeout(wait_s)
        try:
            data = self.socket.recv(LONGEST)
        except TimeoutError:
            return []
        except OSError:
            data = b""
        self.closed = self.closed or not data
        *lines, self._read = (self._read + data).split(b"\n")
        messages = [self._message(line) for line in lines]
        self.closed = self.closed or len(self._read) > LONGEST
        return [message for message in messages if message is not None]

    def _message(self, line: bytes) -> dict[str, Any] | None:
        with suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                return found
        self.closed = True
        return None

    def close(self) -> None:
        """Ends the connection; the other end sees it."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
