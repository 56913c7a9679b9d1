"""A hub on the loopback that takes a commit and gives files, for the real huggingface_hub client."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "b" * 40
"""Of the model me/published."""


class Hub(ThreadingHTTPServer):
    """Knows one repository, `private` or not; `status` answers the commit, and `files` are what it brought."""

    def __init__(self, *, private: bool = False, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.private, self.status = private, status
        self.asked: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.published: dict[str, bytes] = {}
        """The files of the model me/published, all of one commit."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, found = self._found(body)
        data = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _found(self, body: bytes) -> tuple[int, dict[str, Any]]:
        if self.path.startswith("/api/models/me/published"):
            files = [{"rfilename": name} for name in self.server.published]
            return 200, {"id": "me/published", "sha": COMMIT, "private": False, "siblings": files, "tags": []}
        match self.path:
            case "/api/repos/create":
                self.server.asked = json.loads(body)
                return 200, {"url": f"{self.server.address}/me/export"}
            case "/api/models/me/export":
                return 200, {"id": "me/export", "private": self.server.private, "siblings": [], "tags": []}
            case "/api/models/me/export/preupload/main":
                files = json.loads(body)["files"]
                return 200, {
                    "files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]
                }
            case "/api/models/me/export/commit/main" if self.server.status == 200:
                self._keep(body)
                commit = "a" * 40
                return 200, {"commitOid": commit, "commitUrl": f"{self.server.address}/me/export/commit/{commit}"}
            case "/api/models/me/export/commit/main":
                return self.server.status, {"error": "no"}
        return 200, {"errors": [], "warnings": []}

    def _keep(self, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])

    def _give(self) -> None:
        """A file of the model me/published, or that there is none."""
        name = self.path.rpartition("/")[2]
        data = self.server.published.get(name)
        self.send_response(404 if data is None else 200)
        if data is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{name}-1"')
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data or b"")

    def do_HEAD(self) -> None:
        self._give()

    def do_GET(self) -> None:
        self._give() if self.path.startswith("/me/published/resolve/") else self._answer()

    do_POST = _answer

    def log_message(self, *words: object) -> None:
        pass
