"""The command lines of `octavo bench`: what they accept, and that bad input gets one clear line before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo.bench.provenance import command_line
from octavo.bench.server_set import Servers
from octavo.cli.bench_measure import parse_servers
from octavo.cli.main import run
from octavo.errors import ConfigError

RUN = ("run", "--url", "http://x")
ONE = (*RUN, "--rate", "1")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((*ONE, "--duration", "soon"), "duration='soon"),
        ((*ONE, "--duration", "-3"), "expected a time above zero"),
        ((*ONE, "--slo", "ttft=500"), "has no unit; write ttft=500ms"),
        (RUN, "poisson arrivals need a rate: give --rate 4"),
        ((*RUN, "--rate", "-1"), "greater than or equal to 0"),
        ((*ONE, "--arrivals", "poison"), "did you mean 'poisson'"),
        ((*ONE, "--speed", "2"), "--speed belongs to the replay of a trace"),
        ((*RUN, "--workload", "trace:azure-cov"), "azure-conv"),
        ((*RUN, "--workload", "trace:bad.csv"), "bad.csv:2"),
        ((*ONE, "--rows", "rows.txt"), "a .csv or a .parquet file"),
        (("run", "--rate", "1", "--url", "ftp://x"), "expected http://host:port"),
        ((*ONE, "--url", "B=http://y"), "of several servers each needs a name"),
        (("run", "--rate", "1", "--url", "A=http://x", "--url", "A=http://y"), "'A' is given twice"),
        (("run", "--rate", "1", "--url", "A=http://x", "--start", "A=s {port}"), "with --url and with --start"),
        (("run", "--rate", "1", "--start", "llama-server"), "write {port} where it goes"),
        (("run", "--rate", "1", "--start", "s {port}", "--model", "m"), "say it in the command of --start"),
        ((*ONE, "--api-key-file", "none.key"), "none.key: No such file"),
        ((*ONE, "--api-key-file", "empty.key"), "is empty"),
        ((*ONE, "--api-key-file", "binary.key"), "binary.key: it is not UTF-8 text"),
        (("peers", "a=http://x", "--api-key-file", "a=none.key"), "none.key: No such file"),
        (("peers", "a=http://x", "--api-key-file", "a=empty.key"), "is empty"),
        (("peers", "a=http://x", "--api-key-file", "a=binary.key"), "it is not UTF-8 text"),
        ((*ONE, "--api-key", "s3cret"), "No such option: --api-key"),
        (("run", "--rate", "1", "--api-key-file", "empty.key"), "wants no key"),
        (("sweep", "--url", "http://x", "--rates", "1,0"), "rates above zero"),
        (("sweep", "--url", "http://x", "--rates", "1;2"), "numbers with commas"),
        (("sweep", "--url", "http://x", "--rates", "1", "--start", "s {port}"), "not both"),
        (("sweep", "--url", "http://x", "--rates", "1", "--arrivals", "closed:users=2"), "--rate belongs to"),
        (("sweep", "--url", "http://x"), "--rates"),
        (("compare", "bad.csv"), "not a result of octavo bench"),
        (("compare",), "A.json"),
    ],
)
def test_bad_input_gets_one_clear_line(
    arguments: tuple[str, ...],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.key").write_text("\n")
    (tmp_path / "binary.key").write_bytes(b"\xff\xfe")
    (tmp_path / "bad.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,2\n")
    before = sorted(tmp_path.iterdir())
    assert run(["bench", *arguments]) in (1, 2)
    said = capsys.readouterr()
    assert says in said.err
    assert len(said.err.strip().splitlines()) == 1 and said.out == ""
    assert sorted(tmp_path.iterdir()) == before


def servers(url: list[str], start: list[str] | None = None, keys: list[str] | None = None) -> Servers:
    return parse_servers(url, start or [], "", keys or [], "run")


def test_servers_and_their_names(tmp_path: Path) -> None:
    assert servers([]).urls == servers([]).commands == {}
    assert servers(["http://h:1/?a=b"]).urls == {"run": "http://h:1/?a=b"}
    assert servers(["A=http://h:1"]).urls == {"A": "http://h:1"}
    assert list(servers(["b=http://h:1", "a=http://h:2"]).urls) == ["b", "a"], "the first is the baseline"
    assert servers([], ["python s.py --port={port}"]).commands == {"run": "python s.py --port={port}"}
    mixed = servers(["A=http://h:1"], ["B=serve --port={port} --x=y"])
    assert mixed.urls == {"A": "http://h:1"} and mixed.commands == {"B": "serve --port={port} --x=y"}
    with pytest.raises(ConfigError, match="write A=http://h:1"):
        servers(["http://h:1", "http://h:2"])


def test_keys_come_from_files_and_go_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("sk-one\nsecond line\n")
    (tmp_path / "two").write_text("sk-two")
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert servers(["http://h"], keys=[one]).api_keys == {"run": "sk-one"}
    both = servers(["A=http://h", "B=http://g"], keys=[f"B={two}", one])
    assert both.api_keys == {"A": "sk-one", "B": "sk-two"}, "a name goes before a file for all"
    shown = command_line(["bench", "run", "--url", "A=http://h", "--api-key-file", one])
    assert "sk-one" not in shown and one in shown
