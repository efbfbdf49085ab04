"""A bucket in memory behind the part of the JSON API of Google Cloud Storage that fsspec,
TensorStore and google-cloud-storage use.

Objects appear whole, or not at all; there are no folders and no rename: a program that needs either
fails here as it would there.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET = "bucket"
Objects = dict[str, tuple[int, bytes]]  # name -> (generation, content)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Silent."""

    def _answer(
        self, code: int, body: bytes, kind: str = "application/json", **headers: str
    ) -> None:
        self.send_response(code)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            **headers,
        }.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            # a client that reads ahead and changes its mind
            with contextlib.suppress(BrokenPipeError):
                self.wfile.write(body)

    def _json(self, value: object, code: int = 200, **headers: str) -> None:
        self._answer(code, json.dumps(value).encode(), **headers)

    def _missing(self) -> None:
        self._json({"error": {"code": 404, "message": "Not Found"}}, 404)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        out = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            out += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return out

    def _resource(self, name: str) -> dict:
        generation, content = self.server.objects[name]
        md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
        time = "2026-01-01T00:00:00.000Z"
        facts = {
            "kind": "storage#object",
            "id": f"{BUCKET}/{name}/{generation}",
            "name": name,
            "bucket": BUCKET,
            "size": str(len(content)),
        }
        return facts | {
            "generation": str(generation),
            "metageneration": "1",
            "md5Hash": md5,
            "etag": md5,
            "updated": time,
            "timeCreated": time,
        }

    def _store(self, name: str, content: bytes, query: dict) -> None:
        with self.server.lock:
            wanted = query.get("ifGenerationMatch")
            if wanted is not None and int(wanted[0]) != self.server.objects.get(name, (0, b""))[0]:
                self._json({"error": {"code": 412, "message": "conditionNotMet"}}, 412)
                return
            self.server.generation += 1
            self.server.objects[name] = (self.server.generation, content)
            self._json(self._resource(name))

    def _route(self) -> tuple[str, str | None, dict]:
        parts = urlsplit(self.path)
        match = re.fullmatch(
            r"(?:/(upload|download))?/storage/v1/b/([^/]+)(?:/o(?:/(.*))?)?", parts.path
        )
        return (
            parts.path,
            unquote(match[3]) if match and match[3] else None,
            parse_qs(parts.query, keep_blank_values=True),
        )

    def do_GET(self) -> None:
        path, name, query = self._route()
        if name is None:
            (
                self._list(query)
                if path.endswith("/o")
                else self._json(
                    {"kind": "storage#bucket", "name": BUCKET, "id": BUCKET, "location": "HERE"}
                )
            )
        elif name not in self.server.objects:
            self._missing()
        elif query.get("alt") == ["media"] or path.startswith("/download"):
            generation, content = self.server.objects[name]
            span = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
            generation = {"X_Goog_Generation": str(generation)}
            if not span or not content:
                return self._answer(200, content, "application/octet-stream", **generation)
            start = int(span[1]) if span[1] else max(len(content) - int(span[2]), 0)
            stop = min(int(span[2]) + 1, len(content)) if span[1] and span[2] else len(content)
            if start >= len(content):
                return self._answer(416, b"")
            place = {"Content_Range": f"bytes {start}-{stop - 1}/{len(content)}"}
            self._answer(
                206, content[start:stop], "application/octet-stream", **generation, **place
            )
        else:
            self._json(self._resource(name))

    def _list(self, query: dict) -> None:
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        start, end = query.get("startOffset", [""])[0], query.get("endOffset", [""])[0]
        names, folders = [], set()
        for name in sorted(self.server.objects):
            if not name.startswith(prefix) or name < start or (end and name >= end):
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                names.append(name)
        self._json(
            {
                "kind": "storage#objects",
                "items": [self._resource(n) for n in names],
                "prefixes": sorted(folders),
            }
        )

    def do_POST(self) -> None:
        _, name, query = self._route()
        if "upload_id" in query:
            return self.do_PUT()
        body = self._body()
        if copy := re.fullmatch(
            r"/storage/v1/b/[^/]+/o/(.*)/(?:rewriteTo|copyTo)/b/[^/]+/o/(.*)",
            urlsplit(self.path).path,
        ):
            source, target = unquote(copy[1]), unquote(copy[2])
            if source not in self.server.objects:
                return self._missing()
            with self.server.lock:
                self.server.generation += 1
                self.server.objects[target] = (
                    self.server.generation,
                    self.server.objects[source][1],
                )
            size = str(len(self.server.objects[target][1]))
            return self._json(
                {
                    "kind": "storage#rewriteResponse",
                    "done": True,
                    "totalBytesRewritten": size,
                    "objectSize": size,
                    "resource": self._resource(target),
                }
            )
        kind = query.get("uploadType", [""])[0]
        if kind == "multipart":
            message = message_from_bytes(
                b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n" + body
            )
            facts, content = message.get_payload()
            return self._store(
                json.loads(facts.get_payload())["name"], content.get_payload(decode=True), query
            )
        if kind == "resumable":
            name = query.get("name", [None])[0] or json.loads(body)["name"]
            key = str(len(self.server.uploads))
            self.server.uploads[key] = (name, bytearray(), query)
            return self._json(
                {},
                Location=f"{self.server.url}/upload/storage/v1/b/{BUCKET}/o?uploadType=resumable&upload_id={key}",
            )
        if kind == "media":
            return self._store(query["name"][0], body, query)
        return self._missing()

    def do_PUT(self) -> None:
        _, _, query = self._route()
        name, content, first = self.server.uploads[query["upload_id"][0]]
        content += self._body()
        total = self.headers.get("Content-Range", "").rpartition("/")[2]
        if total in ("", str(len(content))):
            return self._store(name, bytes(content), first)
        self._answer(308, b"", Range=f"bytes=0-{len(content) - 1}")

    def do_DELETE(self) -> None:
        _, name, _ = self._route()
        with self.server.lock:
            found = self.server.objects.pop(name, None)
        self._answer(204, b"") if found else self._missing()


@functools.cache
def _server() -> ThreadingHTTPServer:
    """One for all tests of this process: the clients remember where it is."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.objects, server.uploads, server.generation, server.lock = {}, {}, 0, threading.Lock()
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@contextlib.contextmanager
def bucket() -> Iterator[Objects]:
    """The objects of `gs://bucket`, none at first, with this process (and those that it starts)
    pointed at it.
    """
    url = _server().url
    env = {
        "STORAGE_EMULATOR_HOST": url,
        "TENSORSTORE_GCS_HTTP_URL": url,
        "GOOGLE_CLOUD_PROJECT": "none",
        "NO_GCE_CHECK": "true",
    }
    # it would ask who we are, of a service that is not here
    env["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
    _server().objects.clear()
    with mock.patch.dict(os.environ, env):
        yield _server().objects
