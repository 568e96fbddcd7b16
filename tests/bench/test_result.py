"""A result file survives the round trip, says what is wrong with another, and its published schema is the types'."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from octavo.bench.result import load, published_schema, save, schema, write_rows
from octavo.errors import ConfigError, ResultFileError

pytest.importorskip("pyarrow")
import pyarrow.parquet as pq

from support.bench_runs import make_records, make_run


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    run = make_run(make_records(40, 4.0))
    path = tmp_path / "new" / "result.json"
    save(run, path)
    assert load(path) == run
    assert not list(path.parent.glob(".*.tmp"))


def test_the_published_schema_is_that_of_the_types() -> None:
    assert json.loads(published_schema()) == schema()


def test_a_crash_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    old = make_run(make_records(10, 4.0))
    save(old, path)

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(make_run(make_records(20, 4.0)), path)
    assert load(path) == old
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "it is not JSON"),
        ("[]", "it has no schema_version"),
        ('{"schema_version": true}', "it has no schema_version"),
        ('{"schema_version": 99}', "schema version 99.*update octavo"),
        ('{"schema_version": 0}', "schema version 0.*measure again"),
        ('{"schema_version": 1, "name": "x"}', "not a valid result"),
    ],
)
def test_what_is_not_a_result_is_said(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(ResultFileError, match=says):
        load(path)


def test_rows_as_csv_and_parquet(tmp_path: Path) -> None:
    run = make_run(make_records(15, 4.0))
    write_rows([run, run], tmp_path / "rows.csv")
    write_rows([run, run], tmp_path / "rows.parquet")
    lines = (tmp_path / "rows.csv").read_text().splitlines()
    assert len(lines) == 31
    table = pq.read_table(tmp_path / "rows.parquet")
    assert table.num_rows == 30
    assert table["ttft_s"].to_pylist()[:15] == [record.ttft_s for record in run.records]
    assert table["chunk_s"].to_pylist()[0] == run.records[0].chunk_s
    with pytest.raises(ConfigError, match=r"\.csv or a \.parquet"):
        write_rows([run], tmp_path / "rows.xls")
