"""Traces: the samples in the package, the formats, and one clear message for every kind of malformed line."""

from __future__ import annotations

import gzip
import json
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.bench.lengths import Fixed, Histogram, parse_lengths
from octavo.bench.traces import BUNDLED, TraceRow, read_trace
from octavo.errors import BenchError, ConfigError


def rows(source: str | Path) -> list[TraceRow]:
    return list(read_trace(str(source)))


@pytest.mark.parametrize(
    ("name", "num_rows", "first", "num_hashes", "num_distinct"),
    [
        ("azure-code", 556, (0.0, 409, 15), 0, 0),
        ("azure-conv", 456, (0.0, 374, 44), 0, 0),
        ("mooncake-conv", 250, (0.0, 4863, 52), 7528, 6502),
        ("mooncake-synthetic", 250, (0.0, 2662, 17), 11832, 4199),
        ("sharegpt", 300, (0.0, 2358, 531), 0, 0),
    ],
)
def test_the_samples_are_the_windows_that_they_say(
    name: str, num_rows: int, first: tuple[float, int, int], num_hashes: int, num_distinct: int
) -> None:
    sample = rows(name)
    assert len(sample) == num_rows
    assert (sample[0].arrival_s, sample[0].num_prompt_tokens, sample[0].num_output_tokens) == first
    hashes = [one for row in sample for one in row.hash_ids]
    assert (len(hashes), len(set(hashes))) == (num_hashes, num_distinct)


def test_the_code_sample_holds_a_burst() -> None:
    sample = rows("azure-code")
    in_burst = [row for row in sample if 110 <= row.arrival_s < 170]
    assert len(in_burst) / len(sample) > 0.8


def test_the_samples_travel_with_their_licences_and_are_small() -> None:
    folder = resources.files("octavo.bench") / "data"
    files = {entry.name: len(entry.read_bytes()) for entry in folder.iterdir()}
    words = {"ATTRIBUTION.md", "LICENSE-CC-BY-4.0", "LICENSE-APACHE-2.0"}
    assert set(files) == set(BUNDLED.values()) | words
    assert sum(files.values()) < 100_000
    text = (folder / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert all(name in text for name in files if name != "ATTRIBUTION.md")


AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,48,10\n2023-11-16 18:17:04.9799600,31,8\n"
MOONCAKE = '{"timestamp": 500, "input_length": 600, "output_length": 5, "hash_ids": [7, 9]}\n'
PLAIN = "arrival_s,input_length,output_length\n1.5,10,20\n\n2.5,30,0\n"
TOKENISED = '{"arrival_time_ns": 2000000000, "input_toks": 3, "output_toks": 4, "input_tok_ids": [1, 2, 3]}\n'


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (AZURE, [TraceRow(0, 48, 10), TraceRow(1, 31, 8)]),
        ("\ufeff" + AZURE.replace("\n", "\r\n"), [TraceRow(0, 48, 10), TraceRow(1, 31, 8)]),
        (AZURE.replace("600,", "600+00:00,"), [TraceRow(0, 48, 10), TraceRow(1, 31, 8)]),
        (MOONCAKE, [TraceRow(0, 600, 5, (7, 9))]),
        (PLAIN, [TraceRow(0, 10, 20), TraceRow(1, 30, 1)]),
        (TOKENISED, [TraceRow(0, 3, 4)]),
    ],
)
def test_the_formats_are_told_from_the_first_line(
    text: str, expected: list[TraceRow], zipped: bool, tmp_path: Path
) -> None:
    path = tmp_path / "no-suffix"
    content = text.encode()
    path.write_bytes(gzip.compress(content) if zipped else content)
    assert rows(path) == expected


def mooncake(**changes: object) -> str:
    fields = {"timestamp": 500, "input_length": 600, "output_length": 5, "hash_ids": [7, 9]} | changes
    return json.dumps({key: value for key, value in fields.items() if value is not None}) + "\n"


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        (AZURE + "2023-11-16 18:17:05,12\n", 4, "2 values, expected 3 (TIMESTAMP,ContextTokens,GeneratedTokens)"),
        (AZURE + "yesterday,12,3\n", 4, "TIMESTAMP = 'yesterday': expected date and time"),
        (AZURE + "2023-11-16 18:17:05,twelve,3\n", 4, "ContextTokens = 'twelve': expected a whole number of tokens"),
        (AZURE + "2023-11-16 18:17:05,12,-3\n", 4, "GeneratedTokens = '-3'"),
        (AZURE + "2023-11-16 18:17:05,12,9999999999\n", 4, "GeneratedTokens = '9999999999'"),
        (AZURE + '2023-11-16 18:17:05,"12,3\n', 4, "not a CSV line"),
        (AZURE + "\n2023-11-16 18:17:04.5,12,3\n", 5, "out of order: TIMESTAMP is 0.47996 s before that of line 3"),
        (PLAIN + "inf,1,1\n", 5, "arrival_s = 'inf': expected seconds"),
        ("when,how_long\n1,2\n", 1, "unknown trace format with when, how_long; expected one of: TIMESTAMP"),
        (MOONCAKE + "{broken\n", 2, "not JSON"),
        (MOONCAKE + "[1]\n", 2, "expected one JSON object a line"),
        (MOONCAKE + mooncake(output_length=None), 2, "no 'output_length'; expected timestamp (milliseconds)"),
        (MOONCAKE + mooncake(timestamp=True), 2, "timestamp = True: expected milliseconds"),
        (MOONCAKE + mooncake(timestamp="soon"), 2, "timestamp = 'soon'"),
        (MOONCAKE + mooncake(timestamp=499.0), 2, "out of order"),
        (MOONCAKE + mooncake(input_length=1.5), 2, "input_length = 1.5"),
        (MOONCAKE + mooncake(hash_ids=[1]), 2, "1 hash_ids for 600 prompt tokens; expected 2, one for every 512"),
        (MOONCAKE + mooncake(hash_ids=[1, "a"]), 2, "expected a list of whole numbers"),
        (MOONCAKE + mooncake(hash_ids=[1, -2]), 2, "expected a list of whole numbers"),
        ('{"a": 1}\n', 1, "unknown trace format with a"),
    ],
)
def test_a_malformed_line_is_named(text: str, line: int, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BenchError) as caught:
        rows(path)
    assert caught.value.message.startswith(f"{path}:{line}: ")
    assert expected in caught.value.message


@pytest.mark.parametrize("content", [b"", b"\n\n", b"TIMESTAMP,ContextTokens,GeneratedTokens\n"])
def test_a_trace_without_requests_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "empty.csv"
    path.write_bytes(content)
    with pytest.raises(BenchError, match="no request in it"):
        rows(path)


@pytest.mark.parametrize(
    "content",
    [gzip.compress(AZURE.encode(), mtime=0)[:-20], b"\x1f\x8bnonsense", b"\xff\xfe\x00a"],
    ids=("cut gzip", "no gzip", "utf-16"),
)
def test_what_is_no_text_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bytes.csv.gz"
    path.write_bytes(content)
    with pytest.raises(BenchError, match=r"bytes\.csv\.gz"):
        rows(path)


def test_an_unknown_trace_names_the_samples() -> None:
    with pytest.raises(
        ConfigError, match=r"did you mean 'azure-code'\? samples in the package: azure-code, azure-conv"
    ):
        rows("azure-cod")


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet='{}[]":,1a\n', max_size=100).map(str.encode))
def test_no_file_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(content)
    with pytest.raises(BenchError):
        rows(path)


def test_a_histogram_file(tmp_path: Path) -> None:
    path = tmp_path / "lengths.csv"
    path.write_text("length,weight\n16,3\n64,1\n", encoding="utf-8")
    assert parse_lengths(f"histogram({path})") == Histogram((16, 64), (0.75, 1.0))
    path.write_text("16,3\n64\n", encoding="utf-8")
    with pytest.raises(BenchError, match=r"lengths\.csv:2: '64' is not a histogram line; expected length,weight"):
        parse_lengths(f"histogram({path})")
    path.write_text("", encoding="utf-8")
    with pytest.raises(BenchError, match="no histogram line"):
        parse_lengths(f"histogram({path})")
    with pytest.raises(ConfigError, match="cannot be read"):
        parse_lengths("histogram(/nowhere)")
    assert parse_lengths(" 12 ") == Fixed(12)
