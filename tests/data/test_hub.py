"""Files of the hub, from a small server on the loopback and then from the cache alone: named files
of a pinned revision, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

import pytest

from jaxsft import rundir
from jaxsft.config import hubid
from jaxsft.data import formats, hub
from jaxsft.errors import ConfigError, DataError
from jaxsft.training import loop
from tests import tiny

constants = pytest.importorskip(
    "huggingface_hub.constants", reason="huggingface_hub is not installed: pip install jaxsft[hub]"
)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """What the client asks of the hub: the commit of a revision, the list of files, and each file.
    `repos`: kind/owner/name -> path -> bytes.
    """

    def answer(self, body: bool) -> None:
        path = unquote(urlparse(self.path).path).strip("/")
        self.server.asked.append(path)
        for name, files in self.server.repos.items():
            kind, _, repo = name.partition("/")
            prefix = "datasets/" if kind == "datasets" else ""
            for revision in (COMMIT, "v1"):
                if path == f"api/{kind}/{repo}/revision/{revision}":
                    return self.send(
                        json.dumps(
                            {
                                "id": repo,
                                "sha": COMMIT,
                                "siblings": [{"rfilename": f} for f in files],
                            }
                        ).encode(),
                        {},
                        body,
                    )
                if path == f"api/{kind}/{repo}/tree/{revision}":
                    tree = [
                        {
                            "type": "file",
                            "path": f,
                            "oid": hashlib.sha1(c).hexdigest(),
                            "size": len(c),
                        }
                        for f, c in files.items()
                    ]
                    return self.send(json.dumps(tree).encode(), {}, body)
                if path.startswith(start := f"{prefix}{repo}/resolve/{revision}/"):
                    if (file := path.removeprefix(start)) not in files:
                        return self.refuse("EntryNotFound")
                    etag = hashlib.sha1(files[file]).hexdigest()
                    return self.send(
                        files[file], {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, body
                    )
            if path.startswith((f"{prefix}{repo}/", f"api/{kind}/{repo}/")):
                return self.refuse("RevisionNotFound")
        return self.refuse("RepoNotFound")

    def send(self, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(200)
        for key, value in {
            "Content-Length": str(len(content)),
            "Content-Type": "application/json",
            **headers,
        }.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.answer(True)

    def do_HEAD(self) -> None:
        self.answer(False)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The hub, empty; the client's cache is empty too."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.repos, server.asked = {}, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    forget()
    yield server
    server.shutdown()
    server.server_close()
    forget()


def forget():
    """As a new process would."""
    hub._data_file.cache_clear()
    hub._snapshot.cache_clear()


def go_offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    forget()


ROWS = b'{"prompt": "a", "completion": "b"}\n{"prompt": "c"}\n'


@pytest.mark.parametrize("revision", [COMMIT, "v1"])
def test_a_data_file_is_fetched_once_and_read_offline(revision, server, monkeypatch):
    server.repos["datasets/us/rows"] = {"sub/rows.jsonl": ROWS, "loader.py": b"raise SystemExit"}
    name = f"hub:us/rows@{revision}/sub/rows.jsonl"
    rows = formats.read(name)
    assert [row.fields for row in rows] == [{"prompt": "a", "completion": "b"}, {"prompt": "c"}]
    assert rows[1].where == f"{name}:2"
    assert hub.commits({"data.train": name, "data.test": None, "run_dir": "x"}) == {name: COMMIT}
    assert not any("loader.py" in path for path in server.asked)
    server.asked.clear()
    go_offline(monkeypatch)
    assert (
        formats.read(name) == rows
        and hub.commits({"data.train": name}) == {name: COMMIT}
        and not server.asked
    )


def test_what_cannot_be_had_is_one_sentence(server, monkeypatch):
    server.repos["datasets/us/rows"] = {"rows.jsonl": ROWS}
    server.repos["models/us/other"] = {"card.json": b"{}", "model.safetensors": b"x"}
    for call, kind, message in (
        (
            lambda: formats.read(f"hub:us/rows@{COMMIT}/none.jsonl"),
            DataError,
            f"us/rows has no file none.jsonl at {COMMIT}",
        ),
        (
            lambda: formats.read("hub:us/rows@v9/rows.jsonl"),
            DataError,
            "us/rows has no revision v9",
        ),
        (
            lambda: formats.read("hub:us/none@v1/rows.jsonl"),
            DataError,
            "there is no us/none, or it is private",
        ),
        (
            lambda: hub.run_dir("hub:us/other@v1"),
            ConfigError,
            "hub:us/other@v1: not a run directory of jaxsft (it has no config.yaml)",
        ),
        (
            lambda: hub.tokenizer_dir("hub:us/other@v1"),
            ConfigError,
            "hub:us/other@v1: it has no tokenizer.json",
        ),
    ):
        with pytest.raises(kind) as caught:
            call()
        assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not any("safetensors" in path for path in server.asked)
    go_offline(monkeypatch)
    for call in (
        lambda: formats.read(f"hub:us/rows@{COMMIT}/rows.jsonl"),
        lambda: hub.run_dir(f"hub:us/run@{COMMIT}"),
    ):
        with pytest.raises(
            (DataError, ConfigError),
            match="there is no copy in the cache and the hub cannot be reached; fetch it once",
        ):
            call()


def test_a_model_of_transformers_is_fetched_without_its_code_and_pickles(server):
    files = (
        "config.json",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "generation_config.json",
    )
    server.repos["models/us/model"] = {
        **dict.fromkeys(files, b"{}"),
        "modeling.py": b"",
        "pytorch_model.bin": b"",
        "flax_model.msgpack": b"",
    }
    folder = hub.run_dir("hub:us/model@v1")
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)


@pytest.mark.slow
def test_a_server_that_is_gone_is_no_traceback(server):
    server.shutdown()
    server.server_close()
    with pytest.raises(
        DataError,
        match=r"hub:us/rows@v1/rows.jsonl: (there is no copy in the cache|cannot be fetched)",
    ):
        formats.read("hub:us/rows@v1/rows.jsonl")


@pytest.mark.parametrize(
    "value, file, message",
    [
        (
            "hub:us/rows/rows.jsonl",
            True,
            (
                "no revision; expected hub:owner/name@revision/path/file.jsonl, with a tag or,"
                " better, a commit"
            ),
        ),
        ("hub:us/run", False, "no revision; expected hub:owner/name@revision, with"),
        ("hub:us/run@main", False, "@main moves"),
        ("hub:run@v1", False, "expected hub:owner/name@revision"),
        ("hub:us/rows@v1", True, "names no file"),
        ("hub:us/run@v1/x", False, "names a file"),
        ("hub:us/rows@v1/../../x.jsonl", True, "expected hub:owner/name@revision/path"),
    ],
)
def test_a_name_must_be_pinned(tmp_path, monkeypatch, value, file, message):
    monkeypatch.setattr(hubid, "_current", lambda repo, data: "")
    with pytest.raises(ConfigError) as caught:
        hubid.parse(value, file=file)
    assert message in str(caught.value)
    option = "data.train" if file else "tokenizer=pretrained tokenizer.path"
    (tmp_path / "rows.jsonl").write_text("{}\n")
    more = () if file else (f"data.train={tmp_path / 'rows.jsonl'}",)
    code, _, err = tiny.jaxsft("train", "task=chat", *f"{option}={value}".split(), *more)
    assert code == 1 and message in err and err.count("\n") == 1


def test_a_run_of_the_hub_is_started_from(server, tmp_path, monkeypatch):
    """Data, weights and tokenizer come from the hub; the commit is in the manifest; the numbers are
    those of the same files here.
    """
    files, base = tiny.data(tmp_path), tmp_path / "base"
    loop.train(
        tiny.config(
            files,
            base,
            train={"duration": "2steps", "batch_size": 4},
            checkpoint={"every": "2steps"},
        )
    )
    content = {str(p.relative_to(base)): p.read_bytes() for p in base.rglob("*") if p.is_file()}
    server.repos["models/us/run"] = content | {
        "setup.py": b"raise SystemExit",
        "pytorch_model.bin": b"\x80",
    }
    server.repos["datasets/us/rows"] = {
        name: (files / name).read_bytes() for name in ("chat.jsonl", "chat_held.jsonl")
    }
    model, data = f"hub:us/run@{COMMIT}", f"hub:us/rows@{COMMIT}"

    def start(name, pretrained, folder):
        config = tiny.config(
            tmp_path,
            tmp_path / name,
            data={"train": f"{folder}/chat.jsonl", "validation": f"{folder}/chat_held.jsonl"},
            model={"pretrained": pretrained},
            train={"duration": "2steps", "batch_size": 4},
        )
        return loop.train(config).numbers

    numbers = start("from_hub", model, data)
    assert numbers == start("from_here", str(base), str(files))
    manifest = rundir.read_json(tmp_path / "from_hub" / "manifest.json")
    assert manifest["hub"] == dict.fromkeys(
        (model, f"{data}/chat.jsonl", f"{data}/chat_held.jsonl"), COMMIT
    )
    assert rundir.read_json(tmp_path / "from_here" / "manifest.json")["hub"] == {}
    assert not any(
        path.endswith((".py", ".bin", "metrics.jsonl", "result.json", "ledger.json"))
        for path in server.asked
    )
    server.asked.clear()
    go_offline(monkeypatch)
    assert start("offline", model, data) == numbers and not server.asked


@pytest.mark.parametrize(
    ("value", "file", "kind"),
    [("hub:us/run", False, "model"), ("hub:us/rows@main/a.csv", True, "dataset")],
)
def test_without_a_revision_the_error_gives_the_commit_of_now(monkeypatch, value, file, kind):
    asked = []

    class Api:
        def repo_info(self, repo, repo_type, timeout):
            asked.append((repo, repo_type))
            return type("Info", (), {"sha": COMMIT})

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    with pytest.raises(ConfigError, match=f"its commit is now {COMMIT}"):
        hubid.parse(value, file=file)
    assert asked == [(value[4:].split("@")[0], kind)]
    monkeypatch.setattr(Api, "repo_info", lambda *a, **k: 1 / 0)
    with pytest.raises(ConfigError, match=r"a tag or, better, a commit$"):
        hubid.parse(value, file=file)
