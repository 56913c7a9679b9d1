"""A command whose process is forked from the warm stack, for programs that start commands themselves: W&B's agent.

`WarmDoor.command` is what such a program is to start: a tiny Python that hands its words, streams, working directory
and environment to the test's process. That forks a `python WORDS…` and passes on its exit code. A signal that the tiny
process gets goes to the forked one, and SIGKILL of the one is SIGKILL of the other.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import warm

RELAY = """
import json, os, signal, socket, sys
place = socket.socket(socket.AF_UNIX)
place.connect(sys.argv[1])
told = {"words": sys.argv[2:], "cwd": os.getcwd(), "environment": dict(os.environ)}
socket.send_fds(place, [b"."], [1, 2])
place.sendall(json.dumps(told).encode() + b"\\n")
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda number, _: place.sendall(bytes([number])))
answer = b""
while not answer.endswith(b"\\n"):
    answer += place.recv(20) or sys.exit(99)
os._exit(int(answer))
"""


class WarmDoor:
    """Listens inside its `with`; `codes` has the words and exit code of every process that ended."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "door"
        self._socket = socket.socket(socket.AF_UNIX)
        self._living: list[tuple[list[str], subprocess.Popen[str]]] = []
        self.codes: list[tuple[list[str], int]] = []

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-S", "-E", "-c", RELAY, str(self._path), *words]

    def __enter__(self) -> Self:
        self._socket.bind(str(self._path))
        self._socket.listen(20)
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.kill()

    def ended(self, *words: str) -> list[int]:
        """The exit codes of the processes that were given all these words, in the order in which they ended."""
        return [code for given, code in self.codes if set(words) <= set(given)]

    def kill(self, *words: str) -> None:
        """Kills the living processes that were given all these words."""
        for given, process in [*self._living]:
            if set(words) <= set(given):
                process.kill()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                place, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(place,), daemon=True).start()

    def _serve(self, place: socket.socket) -> None:
        with place, place.makefile("rb") as words:
            _, streams, _, _ = socket.recv_fds(place, 1, 2)
            asked = json.loads(words.readline())
            options = {"cwd": asked["cwd"], "env": asked["environment"], "stdin": subprocess.DEVNULL}
            process = warm.popen(*asked["words"], stdout=streams[0], stderr=streams[1], **options)
            self._living.append((asked["words"], process))
            for stream in streams:
                os.close(stream)
            ended = threading.Thread(target=self._pass_on, args=(process, asked["words"], place), daemon=True)
            ended.start()
            with suppress(OSError):
                while number := words.read(1):
                    process.send_signal(number[0])
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)  # the tiny process was killed
            ended.join()

    def _pass_on(self, process: "subprocess.Popen[str]", words: list[str], place: socket.socket) -> None:
        code = process.wait()
        self._living.remove((words, process))
        self.codes.append((words, code))
        with suppress(OSError):
            place.sendall(b"%d\n" % (code if code >= 0 else 128 - code))
            place.shutdown(socket.SHUT_RDWR)
