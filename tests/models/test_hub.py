"""hf:// models, fetched by huggingface_hub from a stand-in for the hub on this machine."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from octavo.errors import DownloadError, ModelNotFoundError, UnsupportedModelError
from octavo.models.hub import HubReference, fetch_from_hub, is_complete, parse_reference

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = {
    "config.json": b'{"model_type": "llama"}',
    "model-00001-of-00002.safetensors": b"first",
    "model-00002-of-00002.safetensors": b"second",
    "model.safetensors.index.json": b"{}",
    "tokenizer.json": b'{"model": 1}',
    "chat_template.jinja": b"{{ messages }}",
    "tokenizer.model": b"sp",
    "pytorch_model.bin": b"pickle",
    "modeling_evil.py": b"raise SystemExit",
    "training_args.pt": b"pickle",
    "original/consolidated.00.safetensors": b"other naming",
    "consolidated.safetensors": b"other naming",
    "README.md": b"words",
}
REPOSITORIES = {
    "org/model": MODEL,
    "org/ggufs": {"small.Q8_0.gguf": b"GGUF small", "sub/big.gguf": b"GGUF big", "config.json": b"{}"},
    "org/half": {name: MODEL[name] for name in ("config.json", "model-00001-of-00002.safetensors")},
}


class Hub(http.server.BaseHTTPRequestHandler):
    """The few routes that a download uses. ``server.requested`` collects the files that were asked for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/api/models/([\w-]+/[\w-]+)(/revision/([\w.]+))?(/tree/\w+)?", path):
            self.api(match[1], match[3], is_tree=bool(match[4]))
        elif match := re.fullmatch(rf"/([\w-]+/[\w-]+)/resolve/(main|v1|{COMMIT})/(.+)", path):
            self.file(match[1], match[3])
        else:
            self.answer(404, b"no such route")

    do_HEAD = do_GET

    def api(self, repo: str, revision: str | None, *, is_tree: bool) -> None:
        if repo == "org/gated":
            self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
        elif repo == "org/broken":
            self.answer(500, b"out of order")
        elif repo not in REPOSITORIES:
            self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif revision not in (None, "main", "v1", COMMIT):
            self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif is_tree:
            files = [
                {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
                for name, body in REPOSITORIES[repo].items()
            ]
            self.answer(200, json.dumps(files).encode(), {"Content-Type": "application/json"})
        else:
            siblings = [{"rfilename": name} for name in REPOSITORIES[repo]]
            body = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
            self.answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def file(self, repo: str, name: str) -> None:
        body = REPOSITORIES.get(repo, {}).get(name)
        if body is None:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        if self.command == "GET":
            self.server.requested.append(name)  # type: ignore[attr-defined]
        self.answer(200, body, {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": COMMIT})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[http.server.ThreadingHTTPServer]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.requested = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def address(server: http.server.ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hf://org/model", HubReference("org/model")),
        ("hf://Org-1/Model.2_b@v1", HubReference("Org-1/Model.2_b", "v1")),
        ("hf://org/model@refs/pr/3", HubReference("org/model", "refs/pr/3")),
        ("hf://org/model/file.gguf", HubReference("org/model", None, "file.gguf")),
        ("hf://org/model@v1/sub/file.Q4_K_M.GGUF", HubReference("org/model", "v1", "sub/file.Q4_K_M.GGUF")),
    ],
)
def test_references(name: str, expected: HubReference) -> None:
    assert parse_reference(name) == expected
    assert str(expected) == name


@pytest.mark.parametrize("name", ["hf://", "hf://org", "hf://a/b/c", "hf://org/../x.gguf", "hf://org/m@", "org/model"])
def test_bad_references(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="expected hf://org/name"):
        parse_reference(name)


def test_only_weights_and_text_are_fetched(
    hub: http.server.ThreadingHTTPServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages: list[tuple[str, int, int]] = []
    folder = fetch_from_hub(
        HubReference("org/model"),
        endpoint=address(hub),
        cache=tmp_path,
        progress=lambda stage, done, total: stages.append((stage, done, total)),
    )
    unwanted = {"pytorch_model.bin", "modeling_evil.py", "training_args.pt", "README.md", "consolidated.safetensors"}
    wanted = {name for name in MODEL if "/" not in name} - unwanted
    assert {path.name for path in folder.iterdir()} == wanted == set(hub.requested)  # type: ignore[attr-defined]
    assert (folder / "model-00002-of-00002.safetensors").read_bytes() == b"second"
    assert is_complete(folder) and folder.name == COMMIT
    num_bytes = sum(len(MODEL[name]) for name in wanted)
    assert stages[0] == ("fetching hf://org/model from the hub", 0, 0)
    assert stages[-1] == ("fetching hf://org/model from the hub", num_bytes, num_bytes)
    assert capsys.readouterr().err == ""  # the library's own bars stay away
    hub.requested.clear()  # type: ignore[attr-defined]
    assert fetch_from_hub(HubReference("org/model", "v1"), endpoint=address(hub), cache=tmp_path) == folder
    assert hub.requested == []  # type: ignore[attr-defined]


def test_one_gguf_file_of_a_repository(hub: http.server.ThreadingHTTPServer, tmp_path: Path) -> None:
    for name in ("small.Q8_0.gguf", "sub/big.gguf"):
        path = fetch_from_hub(HubReference("org/ggufs", "main", name), endpoint=address(hub), cache=tmp_path)
        assert path.read_bytes() == REPOSITORIES["org/ggufs"][name]
    with pytest.raises(ModelNotFoundError, match=r"org/ggufs has no file other\.gguf"):
        fetch_from_hub(HubReference("org/ggufs", None, "other.gguf"), endpoint=address(hub), cache=tmp_path)


@pytest.mark.parametrize(
    ("reference", "error", "words"),
    [
        (HubReference("org/nothing"), ModelNotFoundError, "the hub has no hf://org/nothing"),
        (HubReference("org/model", "v9"), ModelNotFoundError, "the hub has no hf://org/model@v9"),
        (HubReference("org/gated"), DownloadError, r"gated: accept its licence at .*HF_TOKEN"),
        (HubReference("org/broken"), DownloadError, "hf://org/broken: .*500"),
        (HubReference("org/ggufs"), UnsupportedModelError, r"hf://org/ggufs/<file>\.gguf"),
        (HubReference("org/half"), UnsupportedModelError, "no complete set"),
    ],
)
def test_what_the_hub_refuses(
    hub: http.server.ThreadingHTTPServer, tmp_path: Path, reference: HubReference, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        fetch_from_hub(reference, endpoint=address(hub), cache=tmp_path)
    assert "\n" not in str(caught.value)


def test_no_connection_is_a_download_error(hub: http.server.ThreadingHTTPServer, tmp_path: Path) -> None:
    gone = address(hub).rsplit(":", 1)[0] + ":9"
    with pytest.raises(DownloadError, match="cannot reach the hub for hf://org/model"):
        fetch_from_hub(HubReference("org/model"), endpoint=gone, cache=tmp_path)


def test_resolve_reads_the_hubs_own_settings(hub: http.server.ThreadingHTTPServer, tmp_path: Path) -> None:
    code = (
        "from octavo.models.registry import find_model; model = find_model('hf://org/model'); "
        "gguf = find_model('hf://org/ggufs/sub/big.gguf'); print(model.name, model.format, gguf.format, model.path)"
    )
    environment = {**os.environ, "HF_ENDPOINT": address(hub), "HF_HOME": str(tmp_path)}
    environment.pop("HF_HUB_OFFLINE", None)
    output = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert output[:3] == ["org/model", "safetensors", "gguf"]
    assert Path(output[3]).is_relative_to(tmp_path)
