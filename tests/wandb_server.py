"""A W&B server on the loopback, as much of one as `wandb sweep`, `wandb agent` and the runs of both need.

It refuses a request that the client's own package does not define, so nothing passes that a real client would not send.
"""

import json
import mmap
import os
import re
import sys
import threading
from collections import defaultdict
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import yaml
from wandb_controller import Handed, Received

KEY = "0123456789" * 4
ENTITY, PROJECT, SWEEP = "me", "tests", "sweep123"
OPERATION = re.compile(r"(query|mutation)\s+(\w+)")


def clients_environment(url: str, home: Path) -> dict[str, str]:
    """The variables that send a client to `url`, with the caller's W&B account out of its sight."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_") and name != "NETRC"}
    folders = dict.fromkeys(("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"), str(home))
    return {**mine, **folders, "WANDB_BASE_URL": url, "WANDB_API_KEY": KEY, "WANDB_ERROR_REPORTING": "false"}


@cache
def _defined(text: str) -> bool:
    """Whether the client's own package has this request: verbatim in its Go core, or each word of it in its Python."""
    import wandb

    package = Path(wandb.__file__).parent
    core = (package / "bin" / "wandb-core").open("rb")
    with core as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as program:
        if program.find(text.strip().encode()) >= 0:
            return True
    head, words = re.compile(r"\s+".join(_head(text)) + r"\b"), {*re.findall(r"[A-Za-z_]\w+", text)}
    folders = (package / "apis", package / "sdk" / "artifacts", package / "sdk" / "launch")
    sources = (file.read_text() for folder in folders for file in folder.rglob("*.py"))
    return any(head.search(source) and words <= {*re.findall(r"[A-Za-z_]\w+", source)} for source in sources)


def _head(text: str) -> tuple[str, str]:
    operation = OPERATION.search(text)
    assert operation is not None
    return operation[1], operation[2]


class Server(ThreadingHTTPServer):
    """Listens inside its `with`. After `silent` is set it takes requests and never answers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.silent = threading.Event()
        self.closing = threading.Event()
        self.deciding = threading.Lock()
        self.refused: list[str] = []
        """Requests that the client's own package does not define."""
        self.runs: dict[str, Received] = {}
        self.files: dict[str, dict[str, bytes]] = defaultdict(dict)
        """Run or artifact -> file -> its bytes."""
        self.sweeps: dict[str, Handed] = {}
        self.agents: dict[str, str] = {}
        """Agent -> its sweep."""
        self.operations: list[str] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that ends leaves its connections
            super().handle_error(request, client_address)

    def run(self, name: str) -> Received:
        return self.runs.setdefault(name, Received())


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *arguments: object) -> None: ...

    def do_PUT(self) -> None:
        body = self._body()
        _, owner, name = self.path.split("/", 2)
        self.server.files[owner][name] = body
        self._answer({})

    def do_POST(self) -> None:
        body = json.loads(self._body())
        if "file_stream" in self.path:
            self._stream(self.server.run(self.path.split("/")[-2]), body)
            return self._answer({})
        text = body["query"]
        if not _defined(text):
            self.server.refused.append(text)
            self.send_error(400, "the client's package does not define this")
            return None
        operation = _head(text)[1]
        self.server.operations.append(operation)
        return self._answer({"data": self._data(operation, body.get("variables") or {})})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _answer(self, answer: dict[str, Any]) -> None:
        if self.server.silent.is_set():
            self.server.closing.wait()
            return
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    @staticmethod
    def _stream(run: Received, body: dict[str, Any]) -> None:
        files = body.get("files") or {}
        run.history += [json.loads(row) for row in files.get("wandb-history.jsonl", {}).get("content", [])]
        for row in files.get("wandb-summary.json", {}).get("content", []):
            run.summary = json.loads(row)
        if body.get("complete"):
            run.exit_code = body["exitcode"]

    def _data(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "p", "name": PROJECT, "entity": {"id": "e", "name": ENTITY}}
        match operation:
            case "Viewer":
                return {"viewer": {"id": "v", "entity": ENTITY, "username": ENTITY, "flags": "{}"}}
            case "RunResumeStatus":
                return {"model": {**project, "bucket": None}}
            case "UpsertBucket":
                return {"upsertBucket": {"bucket": {**self._upsert(given), "project": project}}}
            case "CreateRunFiles":
                files = [{"name": name, "uploadUrl": self._place(given["run"], name)} for name in given["files"]]
                # wandb's service process dies of an answer without this key.
                return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
            case "UpsertSweep":
                name = SWEEP if not self.server.sweeps else f"{SWEEP}-{len(self.server.sweeps)}"
                self.server.sweeps[name] = Handed(yaml.safe_load(given["config"]))
                return {"upsertSweep": {"sweep": {"name": name, "project": project}, "configValidationWarnings": []}}
            case "SweepWithRuns":
                return {"project": {"sweep": {**self._sweep(given["sweep"]), "runs": {"edges": []}}}}
            case "GetSweep":
                return {"project": {"sweep": self._sweep(given["name"])}}
            case "CreateAgent":
                agent = f"a{len(self.server.agents)}"
                self.server.agents[agent] = given["sweep"]
                return {"createAgent": {"agent": {"id": agent}}}
            case "Heartbeat":
                with self.server.deciding:
                    sweep = self.server.sweeps[self.server.agents[given["id"]]]
                    commands = sweep.commands(list(json.loads(given["runState"])), self.server.runs)
                return {"agentHeartbeat": {"agent": {"id": given["id"]}, "commands": json.dumps(commands)}}
        return self._artifact(operation, given)

    def _sweep(self, name: str) -> dict[str, Any]:
        config = self.server.sweeps[name].config
        return {"id": f"of {name}", "name": name, "displayName": config.get("name"), "config": yaml.safe_dump(config)}

    def _artifact(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        match operation:
            case "ArtifactType":
                return {"project": {"artifact": None}}
            case "CreateArtifact":
                name = given["input"]["artifactCollectionName"]
                sequence = {"id": "q", "latestArtifact": None}
                return {"createArtifact": {"artifact": {"id": name, "state": "PENDING", "artifactSequence": sequence}}}
            case "CreateArtifactManifest":
                manifest = {"id": "m", "file": self._upload(given["artifactID"], given["name"])}
                return {"createArtifactManifest": {"artifactManifest": manifest}}
            case "CreateArtifactFiles":
                wanted = given["input"]["artifactFiles"]
                edges = [{"node": self._upload(file["artifactID"], file["name"])} for file in wanted]
                return {"createArtifactFiles": {"files": {"edges": edges}}}
            case "CommitArtifact":
                return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": "d"}}}
        return {}  # what the server can do and where it belongs: nothing that a client could not go without

    def _upload(self, owner: str, name: str) -> dict[str, Any]:
        named = {"id": "f", "name": name, "displayName": name, "artifact": {"id": owner}, "storagePath": None}
        return {**named, "uploadUrl": self._place(owner, name), "uploadHeaders": [], "uploadMultipartUrls": None}

    def _place(self, owner: str, name: str) -> str:
        return f"{self.server.url}/{owner}/{name}"

    def _upsert(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.server.run(given["name"])
        run.config |= {key: part["value"] for key, part in json.loads(given["config"] or "{}").items()}
        run.sweep = given.get("sweep") or run.sweep
        run.group = given.get("groupName") or run.group
        return {"id": "b", "name": given["name"], "config": "{}"}
