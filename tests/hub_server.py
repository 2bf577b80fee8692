"""The part of the Hub's HTTP API that huggingface_hub uses to push and pull, on loopback, for tests of the real client."""

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

_LFS_SUFFIXES = (".parquet", ".safetensors", ".png", ".arrow", ".gz")
_API = re.compile(
    r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(preupload|commit|tree|revision|branch|refs|paths-info)(?:/([^/]+))?)?/?(.*)"
)
_FILE = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_BATCH = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch")


@dataclass
class File:
    """One file of a commit."""

    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def blob_id(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    def entry(self, path: str) -> dict:
        found = {"type": "file", "path": path, "size": len(self.content), "oid": self.blob_id}
        return found | ({"lfs": {"oid": self.sha256, "size": len(self.content), "pointerSize": 130}} if self.lfs else {})


@dataclass
class Repo:
    """A repository: branches, each the name of a commit, and what the commits hold."""

    visibility: str | None = None
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, File], message: str) -> str:
        listed = json.dumps([message, self.branches.get(branch), {name: file.sha256 for name, file in sorted(files.items())}])
        oid = hashlib.sha1(listed.encode()).hexdigest()
        self.commits[oid], self.branches[branch] = files, oid
        self.messages.append(message)
        return oid

    def at(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)


@dataclass
class Hub:
    """
    What the server holds, and what it was asked.

    Args:
        tokens: users by their tokens; a user writes to what is below their name.
        on_upload: called with the number of an upload, counted from 1, when half of it has arrived; true drops the connection.
        on_commit: the same for commits, when all has arrived and nothing is done.
    """

    tokens: dict[str, str] = field(default_factory=lambda: {"hf_me": "me"})
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)
    on_upload: Callable[[int], bool] = lambda number: False
    on_commit: Callable[[int], bool] = lambda number: False
    url: str = ""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def repo(self, kind: str, name: str) -> Repo:
        return self.repos[kind, name]

    def make(self, kind: str, name: str, files: dict[str, bytes] | None = None, visibility: str | None = None) -> Repo:
        """Make a repository as the Hub does: with a first commit."""
        repo = self.repos[kind, name] = Repo(visibility)
        found = {".gitattributes": b"*.parquet filter=lfs\n"} | (files or {})
        repo.commit(
            "main", {path: File(content, path.endswith(_LFS_SUFFIXES)) for path, content in found.items()}, "initial commit"
        )
        return repo

    def files(self, kind: str, name: str, branch: str = "main") -> dict[str, bytes]:
        repo = self.repo(kind, name)
        return {path: file.content for path, file in repo.commits[repo.branches[branch]].items()}


@contextmanager
def serve() -> Iterator[Hub]:
    """Serve an empty hub on a free port of loopback."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _RefusedError(Exception):
    def __init__(self, status: int, code: str, message: str):
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_HEAD(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_PUT(self) -> None:
        self._answer(self._put)

    def _answer(self, handle: Callable[[str], None]) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        try:
            handle(path)
        except _RefusedError as refused:
            body = {"error": refused.message}
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
            self._send(refused.status, body, {k: v for k, v in headers.items() if v})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    # What is asked

    def _get(self, path: str) -> None:
        if path == "/api/whoami-v2":
            return self._send(200, {"name": self._user(), "type": "user", "orgs": [], "auth": {"type": "access_token"}})
        if found := _FILE.fullmatch(path):
            return self._resolve(found[1] or "models", found[2], found[3], found[4])
        if found := _API.fullmatch(path):
            kind, name, verb, revision, rest = found.groups()
            if verb in (None, "revision"):
                return self._info(kind, name, revision or "main")
            if verb == "tree":
                return self._tree(kind, name, revision, rest)
            if verb == "refs":
                repo = self._readable(kind, name)
                branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": oid} for n, oid in repo.branches.items()]
                return self._send(200, {"branches": branches, "converts": [], "tags": []})
        raise _RefusedError(404, "", f"no such page: {path}")

    def _post(self, path: str) -> None:
        body = self._body()
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._validate(json.loads(body))
        if found := _BATCH.fullmatch(path):
            return self._batch(found[1] or "models", found[2], json.loads(body))
        if found := _API.fullmatch(path):
            kind, name, verb, revision, _ = found.groups()
            if verb == "preupload":
                return self._preupload(kind, name, revision, json.loads(body))
            if verb == "commit":
                return self._commit(kind, name, revision, body)
            if verb == "branch":
                repo = self._writable(kind, name)
                repo.branches.setdefault(revision, repo.branches["main"])
                return self._send(200, {})
            if verb == "paths-info":
                asked = parse_qs(body.decode()).get("paths") or json.loads(body)["paths"]
                repo, oid = self._at(kind, name, revision)
                files = repo.commits[oid]
                return self._send(200, [files[p].entry(p) for p in asked if p in files])
        raise _RefusedError(404, "", f"no such page: {path}")

    def _put(self, path: str) -> None:
        oid = path.removeprefix("/lfs/")
        size = int(self.headers["Content-Length"])
        first = self.rfile.read(size // 2)
        self.hub.uploads.append(oid)
        if self.hub.on_upload(len(self.hub.uploads)):
            return self._drop()
        content = first + self.rfile.read(size - len(first))
        if hashlib.sha256(content).hexdigest() != oid:
            raise _RefusedError(400, "", "the content is not what was announced")
        self.hub.objects[oid] = content
        self._send(200, {})

    # The answers

    def _create(self, asked: dict) -> None:
        user = self._user()
        name = f"{asked.get('organization') or user}/{asked['name']}"
        kind = f"{asked.get('type') or 'model'}s"
        self._check_owner(name, user)
        with self.hub.lock:
            if (kind, name) in self.hub.repos:
                raise _RefusedError(409, "", "You already created this repo")
            self.hub.make(kind, name, visibility=asked.get("visibility"))
        prefix = "" if kind == "models" else f"{kind}/"
        self._send(200, {"url": f"{self.hub.url}/{prefix}{name}", "name": name, "id": "0"})

    def _validate(self, asked: dict) -> None:
        block = re.match(r"---\n(.*?)\n---", asked["content"], re.DOTALL)
        metadata = yaml.safe_load(block[1]) if block else None
        wrong = [] if isinstance(metadata, dict) else ["the metadata is no mapping"]
        if not wrong and not isinstance(metadata.get("license", ""), (str, list)):
            wrong.append('"license" must be a string')
        status, key = (400, "errors") if wrong else (200, "warnings")
        self._send(status, {"errors": [], "warnings": [], key: [{"message": message} for message in wrong]})

    def _preupload(self, kind: str, name: str, revision: str, asked: dict) -> None:
        repo = self._writable(kind, name)
        there = repo.commits.get(repo.at(revision) or "", {})
        files = []
        for file in asked["files"]:
            lfs = file["path"].endswith(_LFS_SUFFIXES)
            old = there.get(file["path"])
            oid = None if old is None else old.sha256 if old.lfs else old.blob_id
            files.append({"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False, "oid": oid})
        self._send(200, {"files": files})

    def _batch(self, kind: str, name: str, asked: dict) -> None:
        self._writable(kind, name)
        objects = []
        for wanted in asked["objects"]:
            upload = {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}", "header": {}}}
            objects.append(wanted | ({} if wanted["oid"] in self.hub.objects else {"actions": upload}))
        self._send(200, {"transfer": "basic", "objects": objects})

    def _commit(self, kind: str, name: str, revision: str, body: bytes) -> None:
        repo = self._writable(kind, name)
        self.hub.requests.append("commit arrived")
        if self.hub.on_commit(self.hub.requests.count("commit arrived")):
            return self._drop()
        oid = repo.at(revision)
        if oid is None:
            raise _RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files, message = dict(repo.commits[oid]), ""
        for line in map(json.loads, body.splitlines()):
            key, value = line["key"], line["value"]
            if key == "header":
                message = value["summary"]
            elif key == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]), False)
            elif key == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    raise _RefusedError(400, "", f"{value['path']} was not uploaded")
                files[value["path"]] = File(self.hub.objects[value["oid"]], True)
            elif key == "deletedFile":
                files.pop(value["path"])
        with self.hub.lock:
            new = repo.commit(revision, files, message)
        self._send(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{new}", "commitOid": new, "success": True})

    def _info(self, kind: str, name: str, revision: str) -> None:
        repo, oid = self._at(kind, name, revision)
        siblings = [{"rfilename": path} for path in sorted(repo.commits[oid])]
        private = repo.visibility == "private"
        found = {"id": name, "_id": "0", "sha": oid, "private": private, "tags": [], "siblings": siblings, "downloads": 0}
        self._send(200, found | {"likes": 0, "gated": False, "disabled": False})

    def _tree(self, kind: str, name: str, revision: str, folder: str) -> None:
        repo, oid = self._at(kind, name, revision)
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() in ("true", "1")
        start = f"{folder}/" if folder else ""
        below = {path: file for path, file in sorted(repo.commits[oid].items()) if path.startswith(start)}
        if folder and not below:
            raise _RefusedError(404, "EntryNotFound", f"{folder} does not exist on {revision}")
        folders = {path[: path.index("/", len(start))] for path in below if "/" in path[len(start) :]}
        entries = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)]
        entries += [file.entry(path) for path, file in below.items() if recursive or "/" not in path[len(start) :]]
        self._send(200, entries)

    def _resolve(self, kind: str, name: str, revision: str, path: str) -> None:
        repo, oid = self._at(kind, name, revision)
        file = repo.commits[oid].get(path)
        if file is None:
            raise _RefusedError(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": oid, "ETag": f'"{file.sha256 if file.lfs else file.blob_id}"', "Accept-Ranges": "bytes"}
        if file.lfs:
            headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
        start, stop = 0, len(file.content)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            start, stop = int(asked[1]), min(stop, int(asked[2]) + 1) if asked[2] else stop
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(file.content)}"
        self._send(206 if asked else 200, file.content[start:stop], headers)

    # Who may do what

    def _user(self) -> str:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.hub.tokens:
            raise _RefusedError(401, "", "Invalid credentials in Authorization header")
        return self.hub.tokens[token]

    def _check_owner(self, name: str, user: str) -> None:
        if not name.startswith(f"{user}/"):
            message = f'You don\'t have the rights to create or change a repo under the namespace "{name.split("/")[0]}"'
            raise _RefusedError(403, "", message)

    def _readable(self, kind: str, name: str) -> Repo:
        repo = self.hub.repos.get((kind, name))
        if self.headers.get("Authorization"):
            self._user()
        if repo is None or (repo.visibility == "private" and not self.headers.get("Authorization")):
            raise _RefusedError(404, "RepoNotFound", "Repository not found")
        return repo

    def _writable(self, kind: str, name: str) -> Repo:
        repo = self._readable(kind, name)
        self._check_owner(name, self._user())
        return repo

    def _at(self, kind: str, name: str, revision: str) -> tuple[Repo, str]:
        repo = self._readable(kind, name)
        oid = repo.at(revision)
        if oid is None:
            raise _RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo, oid

    # The wire

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _drop(self) -> None:
        """Close the connection without an answer."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        for key, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
