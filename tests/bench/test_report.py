"""The report: one page that needs nothing else, says what is invalid, compares what it can, and trusts no text in a file."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from octavo.bench import plots
from octavo.bench.calibration import Calibration
from octavo.bench.peers import Peer, PeerRatio, PeersResult
from octavo.bench.report.files import Results, read
from octavo.bench.report.page import render, sections
from octavo.bench.report.parts import Pen, Picture
from octavo.bench.result import save
from octavo.bench.scenario_metrics import Measured, Spread
from octavo.bench.suite import Repetition, ScenarioResult, SuiteResult
from octavo.bench.summary import count, summarise
from octavo.bench.types import Counts, Interval, Latency, Outcome, RequestRecord, Run
from octavo.cli.main import run as octavo
from support.simulated_runs import NOTHING, Server, interleaved, queue_records, run

HOSTILE = "</style><script>alert('x')</script><img src=http://evil.example/ onerror=x>&amp; \" --> ]]> $\\frac$"
VOID = {"meta", "br", "img", "link", "hr"}
NO_LATENCY = Latency(mean=NOTHING, p50=NOTHING, p90=NOTHING, p99=NOTHING)


class Page(HTMLParser):
    """Parses strictly: every element is closed in its order; keeps tags, attributes, ids and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], "every element is closed"
        ids = [value for _, name, value in self.attributes if name == "id"]
        assert len(ids) == len(set(ids)), "an id is there once"
        links = [value for _, name, value in self.attributes if name == "href"]
        assert {link[1:] for link in links} <= set(ids), "links lead to places of this page"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def check_self_contained(self) -> None:
        assert not {"script", "iframe", "object", "embed", "link", "img", "form"} & set(self.tags)
        for tag, name, value in self.attributes:
            assert not name.startswith("on"), f"<{tag} {name}=...> runs something"
            if name in ("src", "href", "xlink:href", "srcset", "action"):
                assert value.startswith("#"), f"<{tag} {name}={value!r}> is fetched"


class OnlyTogether(Pen):
    """Draws what shows several runs, not each of them again: that is tested with one run, and drawing takes its time."""

    def draw(self, key: str, kinds: Any, subject: Any) -> tuple[Picture, ...]:
        return () if key.startswith("run-") else super().draw(key, kinds, subject)


def page_of(*runs: Run, **more: object) -> Page:
    text = render(sections(Results(runs=runs, **more), OnlyTogether() if len(runs) > 1 else Pen()))  # type: ignore[arg-type]
    assert not re.search(r"url\((?!#)|@import", text), "no style fetches anything"
    page = Page(text)
    page.check_self_contained()
    return page


def measured(rate: float = 20.0, seed: int = 0, name: str = "octavo", **more: object) -> Run:
    """With records, so that there is something to draw."""
    records = queue_records(rate, 30.0, 150, np.random.default_rng(seed))
    return of_records(records, name=name, arrivals=f"poisson:rate={rate:g}", **more)


def of_records(records: list[RequestRecord], **more: object) -> Run:
    fields: dict[str, object] = {"records": records, "requests": count(records, 0.0), "duration_s": 10.0}
    return run(summarise(records, run().slo, seed=0), **(fields | more))


def test_one_run_is_one_self_contained_page() -> None:
    one = measured()
    page = page_of(one)
    assert page.tags.count("svg") >= 3 and page.tags.count("figcaption") == page.tags.count("svg")
    for said in ("VALID", "150", one.commit, one.command, one.plan_digest, "Example CPU", "2026-11-21T09:00:00Z"):
        assert said in page.text
    assert "INVALID" not in page.text and "All runs" not in page.text and "Against" not in page.text
    p50 = one.summary.e2e_s.p50
    assert p50.value is not None and p50.low is not None
    assert f"{p50.value * 1e3:.3g}"[:3] in page.text and f"[{p50.low * 1e3:.3g}"[:4] in page.text


def test_an_invalid_run_says_so_and_why() -> None:
    page = page_of(measured(valid=False, invalid_reason="the client could not keep up"))
    assert "INVALID: the client could not keep up" in page.text
    assert ("p", "class", "verdict bad") in page.attributes
    several = page_of(measured(), measured(seed=1, valid=False, invalid_reason="it went away"))
    assert "1 of 2 runs are INVALID" in several.text and "INVALID: it went away" in several.text


def test_nothing_in_a_file_becomes_html() -> None:
    records = queue_records(20.0, 30.0, 40, np.random.default_rng(3))
    records += [
        RequestRecord(
            index=40 + i,
            intended_s=1.0,
            sent_s=1.0,
            end_s=2.0,
            outcome=Outcome.FAILED,
            error=HOSTILE,
            status=500,
            tenant=HOSTILE,
            service_class=HOSTILE,
        )
        for i in range(3)
    ]
    texts = {name: f"{name} {HOSTILE}" for name in ("name", "url", "model", "created", "command", "commit", "workload")}
    hostile = of_records(
        records, **texts, arrivals=HOSTILE, valid=False, invalid_reason=HOSTILE, notes=[HOSTILE], plan_digest=HOSTILE,
        machine={"cpu": HOSTILE, "gpus": [{"name": HOSTILE}], "num_cores": HOSTILE}, formulas={HOSTILE: HOSTILE},
        octavo_version=HOSTILE,
    )  # fmt: skip
    hostile.summary = msgspec.structs.replace(hostile.summary, warnings=[HOSTILE])
    other = msgspec.structs.replace(measured(seed=2), name=f"other {HOSTILE}", valid=True)
    for page in (
        page_of(hostile),
        page_of(hostile, other),
        page_of(other, msgspec.structs.replace(hostile, valid=True)),
    ):
        assert page.text.count("<script>alert('x')</script>") > 10, "it is shown as text"


def test_a_run_in_which_all_failed_has_a_page() -> None:
    records = [
        RequestRecord(index=i, intended_s=float(i), sent_s=float(i), end_s=i + 0.5, error=error, outcome=outcome)
        for i, (error, outcome) in enumerate(
            [("refused", Outcome.FAILED)] * 5 + [("no end", Outcome.TIMED_OUT)] * 2 + [(None, Outcome.CANCELLED)]
        )
    ]
    page = page_of(of_records(records))
    assert "failed - refused 5" in page.text and "timed out - no end 2" in page.text
    assert "Latency in ms" not in page.text
    empty = page_of(of_records([], requests=Counts(ok=0, failed=0, timed_out=0)))
    assert "Errors" not in empty.text


def test_many_kinds_of_errors_are_cut_and_counted() -> None:
    records = [
        RequestRecord(index=i, intended_s=0.0, sent_s=0.0, error=f"error {i}", outcome=Outcome.FAILED)
        for i in range(20)
    ]
    assert "8 other kinds - - 8" in page_of(of_records(records)).text


def test_runs_of_two_names_are_compared_and_of_one_are_not() -> None:
    rng = np.random.default_rng(5)
    found = interleaved(Server(size=300), Server(slowness=1.5, size=300), 5, rng)
    runs = [msgspec.structs.replace(one, name=label) for label, group in found.items() for one in group]
    page = page_of(*runs)
    assert "Against A" in page.text and "B is slower in tpot_s.p50" in page.text and "All runs" in page.text
    assert "Latency against load" not in page.text
    alone = page_of(*runs[:5])
    assert "All runs" in alone.text and "Against" not in alone.text
    invalid = [msgspec.structs.replace(one, valid=one.name == "A", invalid_reason="lag") for one in runs]
    assert "not compared" in page_of(*invalid).text


def test_runs_at_several_rates_are_a_sweep() -> None:
    rates = (5.0, 10.0, 20.0)
    page = page_of(*(measured(rate, name=f"sweep {rate:g}/s") for rate in rates))
    assert "Latency against load: sweep" in page.text and "knee:" in page.text and "Against" not in page.text
    both = page_of(*(measured(rate, name=name) for rate in rates[:2] for name in ("old", "new")))
    assert "Against old at 5 requests/s" in both.text and "Against old at 10 requests/s" in both.text
    assert both.text.count("Latency against load:") == 2


def suite(**more: object) -> SuiteResult:
    measured = Measured(ok=1, failed=0, output_tokens_per_s=10.0)
    row = ScenarioResult(
        row="single", target="offline", workload="w", users=1, num_requests=1, num_failed=1, notes=[HOSTILE],
        repetitions=[Repetition(measured=measured, limit=None, calibration=0)],
        output_tokens_per_s=Spread(10.0, 9.0, 11.0), fraction=Spread(0.5, 0.4, 0.6), formula="2 x 2",
    )  # fmt: skip
    fields: dict[str, object] = {
        "suite": "cpu", "created": "now", "command": "octavo bench suite", "commit": "c", "octavo_version": "1", "machine": {},
        "seed": 0, "model": None, "rows": [row], "calibrations": [],
    }  # fmt: skip
    return SuiteResult(**(fields | more))  # type: ignore[arg-type]


def peers() -> PeersResult:
    ratio = PeerRatio(
        row="single", peer="b", baseline="a", metric="output_tokens_per_s", ratio=Interval(2.0, 1.5, 2.5), num_rounds=3
    )
    rows = [msgspec.structs.replace(suite().rows[0], target=name) for name in "ab"]
    return PeersResult(
        suite="cpu", created="now", command="c", commit="", octavo_version="1", machine={"cpu": "x"}, seed=0, form="tokens",
        peers=[Peer(name="a", url="u"), Peer(name="b", url="u", dead="it broke")], rows=rows, ratios=[ratio],
        calibrations=list[Calibration](),
    )  # fmt: skip


def test_suites_and_peers_have_their_sections() -> None:
    page = page_of(suites=(suite(), suite(complete=False)), peers=(peers(),))
    for said in (
        "Suite cpu",
        "INCOMPLETE",
        "Side by side: a, b",
        "b is gone: it broke",
        "2 [1.5, 2.5]",
        "10.0 (9..11.0)",
    ):
        assert said in page.text
    assert page.tags.count("svg") >= 3


def test_files_are_told_apart_and_bad_ones_named(tmp_path: Path) -> None:
    save(run(), tmp_path / "run.json")
    (tmp_path / "suite.json").write_bytes(msgspec.json.encode(suite()))
    (tmp_path / "peers.json").write_bytes(msgspec.json.encode(peers()))
    found = read([tmp_path / f"{name}.json" for name in ("peers", "run", "suite", "run")])
    assert (len(found.runs), len(found.suites), len(found.peers)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "A.json"),
        (("none.json",), "cannot read none.json"),
        (("folder",), "cannot read folder"),
        (("cut.json",), "cut.json is not a result of octavo bench: it is not JSON"),
        (("list.json",), "not a result of octavo bench"),
        (("other.json",), "not a result of octavo bench"),
        (("future.json",), "schema version 9"),
        (("damaged.json",), "not a valid suite result"),
        (("run.json", "--figures", "f", "--format", "gif"), "unknown format 'gif'; known: svg, png"),
        (("run.json", "--html", "folder"), "cannot write"),
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
    save(run(), tmp_path / "run.json")
    (tmp_path / "folder").mkdir()
    (tmp_path / "cut.json").write_bytes((tmp_path / "run.json").read_bytes()[:-300])
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "other.json").write_text('{"kind": "other"}')
    (tmp_path / "future.json").write_text('{"kind": "suite", "schema_version": 9}')
    (tmp_path / "damaged.json").write_text('{"kind": "suite", "schema_version": 1}')
    assert octavo(["bench", "report", *arguments]) in (1, 2)
    said = capsys.readouterr()
    assert says in said.err
    assert len(said.err.strip().splitlines()) == 1 and said.out == ""
    assert not (tmp_path / "report.html").exists() and not (tmp_path / "f").exists()


def test_the_command_writes_the_page_and_the_plots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save(measured(name="../../etc"), tmp_path / "run.json")
    assert octavo(["bench", "report", "run.json", "--figures", "out/f", "--format", "svg, png"]) == 0
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    names = sorted(path.name for path in (tmp_path / "out" / "f").iterdir())
    assert len(names) == 2 * page.tags.count("svg")
    assert {"run-1-latency-cdf.svg", "run-1-latency-cdf.png"} <= set(names)
    assert (tmp_path / "out/f/run-1-latency-cdf.png").read_bytes().startswith(b"\x89PNG")
    assert f"{len(names) // 2} figures" in capsys.readouterr().out
    assert set(plots.FORMATS) == {"svg", "png"}
