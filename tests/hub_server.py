"""A stand-in for the Hugging Face hub: a local HTTP server in the hub's layout, for real clients."""

import hashlib
import json
import os
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_uploads import LARGE, take_upload

# What huggingface_hub, datasets and transformers read; a test sets its own.
_THEIR_VARIABLES = re.compile(r"(HF|HUGGINGFACE|DATASETS|TRANSFORMERS|XDG)_|(https?|all|no)_proxy$", re.IGNORECASE)


@dataclass(frozen=True)
class Repository:
    """One repository at one commit.

    Attributes:
        kind: "models" or "datasets".
        files: path in the repository to its content.
        commit: SHA-1 over names and contents.
        gated: its files need a consent that nobody has given.
        private: there is no such repository for who has no token.
    """

    kind: str
    name: str
    files: dict[str, bytes]
    commit: str
    gated: bool
    private: bool = False

    def describe(self, path: str) -> dict[str, Any]:
        """A file as the hub's listings have it; weights and tables lie in its store for large files."""
        data = self.files[path]
        about: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": _blob_id(data)}
        if path.endswith(LARGE):
            sha256 = hashlib.sha256(data).hexdigest()
            about["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 134}
        return about


@dataclass
class HubServer:
    """Serves what was added to it, and remembers what it was asked.

    Attributes:
        requests: method and path of every request so far.
        status: answer every request with this HTTP status; None to serve.
        moved: old name of a repository to its new one.
        cut_to: send only so many bytes of every file, as if that was all; None for whole files.
        tokens: each token's owner, who may write below their own name.
        refusing: answer requests whose method and path hold this with the status.
        large_files: what was uploaded to its store, by SHA-256, committed or not.
        commits: name of the repository and message of every commit that was pushed.
    """

    requests: list[str] = field(default_factory=list)
    status: int | None = None
    cut_to: int | None = None
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    refusing: dict[str, int] = field(default_factory=dict)
    large_files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        class OwnHandler(Handler):
            hub = self

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), OwnHandler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stop serving; the port is closed from now on."""
        self._server.shutdown()
        self._server.server_close()

    def add_model(self, name: str, folder: Path, *, gated: bool = False) -> str:
        """Put a folder's files up as a model, over an earlier commit of it; returns the new commit."""
        return self._add("models", name, folder, gated)

    def add_dataset(self, name: str, folder: Path, *, gated: bool = False) -> str:
        """Put a folder's files (README.md with its metadata among them) up as a data set; returns the commit."""
        return self._add("datasets", name, folder, gated)

    def _add(self, kind: str, name: str, folder: Path, gated: bool) -> str:
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        return self.put(kind, name, files, gated=gated)

    def put(self, kind: str, name: str, files: dict[str, bytes], *, gated: bool = False, private: bool = False) -> str:
        """Let a repository hold these files, by path, and no others; returns the commit."""
        commit = hashlib.sha1(repr(sorted((path, _blob_id(data)) for path, data in files.items())).encode())
        self.repositories[kind, name] = Repository(kind, name, files, commit.hexdigest(), gated, private)
        return commit.hexdigest()

    def env(self, home: Path) -> dict[str, str]:
        """Environment of a process whose hub is this one and whose cache is `home/huggingface`."""
        return hub_env(self.url, home)


def hub_env(endpoint: str, home: Path) -> dict[str, str]:
    """This process' environment with another hub, another home and nothing else of the libraries' settings."""
    kept = {name: value for name, value in os.environ.items() if not _THEIR_VARIABLES.match(name)}
    return kept | {"HOME": str(home), "HF_HOME": str(home / "huggingface"), "HF_ENDPOINT": endpoint}


def _blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"
    hub: HubServer

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def log_message(self, *_: object) -> None:
        """Keep the tests' output free of it."""

    def _serve(self) -> None:
        self.body = self._read()
        request = f"{self.command} {self.path}"
        self.hub.requests.append(request)
        refused = [status for part, status in self.hub.refusing.items() if part in request]
        if self.hub.status is not None or refused:
            self.send(self.hub.status or refused[0])
            return
        if take_upload(self):
            return
        for pattern, answer in (
            (r"/api/(models|datasets)/(.+?)(?:/revision/([^/]+))?()", self._info),
            (r"/api/(models|datasets)/(.+?)/tree/([^/]+)(?:/(.+))?", self._tree),
            (r"/api/(models|datasets)/(.+?)/paths-info/([^/]+)()", self._paths_info),
            (r"/(?:(datasets)/)?(.+?)/resolve/([^/]+)/(.+)", self._file),
        ):
            found = re.fullmatch(pattern, urlsplit(self.path).path)
            # A name has at most one slash; so the first pattern leaves the next ones' paths alone.
            if found and found[2].count("/") <= 1:
                kind, name, revision, path = (unquote(part or "") for part in found.groups())
                repository = self.hub.repositories.get((kind or "models", name))
                if name in self.hub.moved:
                    self.send(307, headers={"Location": self.path.replace(name, self.hub.moved[name], 1)})
                elif repository is None or (repository.private and self.owner() is None):
                    self.refuse(404, "RepoNotFound")
                elif revision not in ("", "main", repository.commit):
                    self.refuse(404, "RevisionNotFound")
                else:
                    answer(repository, path)
                return
        self.refuse(404, "")

    def _info(self, repository: Repository, _path: str) -> None:
        siblings = [{"rfilename": name} for name in repository.files]
        about = {"id": repository.name, "sha": repository.commit, "siblings": siblings}
        self.send_json(about | {"private": repository.private, "gated": repository.gated and "auto"})

    def _tree(self, repository: Repository, path: str) -> None:
        below = f"{path}/" if path else ""
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() == "true"
        entries: dict[str, dict[str, Any]] = {}
        for name in (name for name in repository.files if name.startswith(below)):
            parts = name.removeprefix(below).split("/")
            for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
                folder = below + "/".join(parts[:depth])
                entries[folder] = {"type": "directory", "path": folder, "oid": _blob_id(folder.encode())}
            if recursive or len(parts) == 1:
                entries[name] = repository.describe(name)
        if entries:
            self.send_json(list(entries.values()))
        else:
            self.refuse(404, "EntryNotFound")

    def _paths_info(self, repository: Repository, _path: str) -> None:
        form = "json" not in self.headers.get("Content-Type", "")
        paths = parse_qs(self.body.decode())["paths"] if form else json.loads(self.body)["paths"]
        self.send_json([repository.describe(name) for name in paths if name in repository.files])

    def _file(self, repository: Repository, path: str) -> None:
        commit = {"X-Repo-Commit": repository.commit}
        if repository.gated:
            self.refuse(403, "GatedRepo")
            return
        if path not in repository.files:
            self.refuse(404, "EntryNotFound", headers=commit)
            return
        data, about = repository.files[path], repository.describe(path)
        headers = commit | {"ETag": f'"{about["oid"]}"', "Accept-Ranges": "bytes"}
        if "lfs" in about:
            headers |= {"X-Linked-Etag": f'"{about["lfs"]["oid"]}"', "X-Linked-Size": str(len(data))}
        if self.command == "GET":
            data = data[: self.hub.cut_to]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self.send(200, data, headers)
            return
        first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self.send(206, data[first : last + 1], headers)

    def _read(self) -> bytes:
        """The request's body, of known length or in chunks."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def owner(self) -> str | None:
        """Who asks; None without a token that is known."""
        return self.hub.tokens.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def send_json(self, value: object, status: int = 200) -> None:
        """Answer with a value as JSON."""
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def refuse(self, status: int, code: str, message: str = "", headers: dict[str, str] | None = None) -> None:
        """Answer with the headers by which the hub says what is wrong."""
        self.send(status, headers={"X-Error-Code": code, "X-Error-Message": message or code} | (headers or {}))

    def send(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Answer with these bytes."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
