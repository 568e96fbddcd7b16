"""The command line as a function: flags from config fields, files under flags, errors in one line with an exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
import typer
from hypothesis import given as given_values
from hypothesis import settings
from hypothesis import strategies as st
from msgspec import Meta

from octavo.cli.flags import FlagGroup, Given, with_flags
from octavo.cli.main import EXIT_FAILED, EXIT_USAGE, run
from octavo.config import EngineConfig, ServerConfig
from octavo.errors import ConfigError
from octavo.types import SamplingParams


class Sample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One field of every kind."""

    num_things: Annotated[int, Meta(ge=1, le=9, description="how many")] = 3
    wait_s: Annotated[float, Meta(gt=0, description="how long")] = 1.5
    name: Annotated[str, Meta(description="what it is called")] = ""
    fast: Annotated[bool, Meta(description="hurry")] = True
    limit: Annotated[int, Meta(ge=1, description="at most")] | None = None
    words: Annotated[tuple[str, ...], Meta(description="which ones")] = ()
    numbers: Annotated[tuple[int, ...], Meta(description="which numbers")] = ()
    hidden: dict[int, float] | None = None


def parse(*arguments: str, group: FlagGroup | None = None, file: Path | None = None) -> Sample:
    """What a command with these flags is given."""
    app = typer.Typer(rich_markup_mode=None)
    seen: list[Sample] = []

    @app.command()
    @with_flags(group or FlagGroup(Sample, "Sample"))
    def command(*, given: Given) -> None:
        if file is not None:
            given.read_file(file)
        seen.append(given.config(Sample))

    app(args=list(arguments), standalone_mode=False)
    return seen[0]


def test_no_flags_give_the_defaults() -> None:
    assert parse() == Sample()


def test_every_kind_of_field() -> None:
    arguments = "--num-things 7 --wait-s 2 --name x --no-fast --limit 4 --words a --words b --numbers 1 --numbers 2"
    expected = Sample(num_things=7, wait_s=2.0, name="x", fast=False, limit=4, words=("a", "b"), numbers=(1, 2))
    assert parse(*arguments.split()) == expected


def test_command_defaults_stand_between_class_and_user(tmp_path: Path) -> None:
    group = FlagGroup(Sample, "Sample", defaults={"limit": 128})
    file = tmp_path / "settings.toml"
    assert parse(group=group).limit == 128
    file.write_text("limit = 7\nname = 'file'\n")
    assert parse(group=group, file=file) == Sample(limit=7, name="file")
    assert parse("--limit", "9", group=group, file=file) == Sample(limit=9, name="file")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--num-things 10", "num_things = 10: expected int <= 9"),
        ("--num-things 0", "num_things = 0: expected int >= 1"),
        ("--wait-s 0", "wait_s = 0.0: expected float > 0.0"),
        ("--wait-s nan", "wait_s = nan: expected float > 0.0"),
        ("--limit -1", "limit = -1: expected int >= 1"),
    ],
)
def test_bounds_name_setting_value_and_limit(arguments: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(*arguments.split())


@settings(max_examples=25, deadline=None)
@given_values(number=st.integers(-100, 100), from_file=st.integers(1, 9))
def test_a_flag_beats_the_file_or_is_refused(tmp_path_factory: Any, number: int, from_file: int) -> None:
    file = tmp_path_factory.mktemp("config") / "settings.toml"
    file.write_text(f"num_things = {from_file}\n")
    assert parse(file=file).num_things == from_file
    if 1 <= number <= 9:
        assert parse("--num-things", str(number), file=file).num_things == number
    else:
        with pytest.raises(ConfigError, match="num_things"):
            parse("--num-things", str(number), file=file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_thing = 3", "did you mean 'num_things'"),
        ("zebra = 3", "known: num_things"),
        ("num_things = 'many'", "num_things = 'many': expected int"),
        ("num_things = [1]", "num_things = "),
        ("num_things 3", "is not TOML"),
        ("fast = 3", "fast = 3: expected bool"),
        ("words = ['a', 3]", "words = "),
    ],
)
def test_bad_files_are_refused_with_what_to_do(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        parse(file=file)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        parse(file=tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not TOML"):
        parse(file=tmp_path / "binary.toml")


def help_of(*command: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert run([*command, "--help"]) == 0
    return capsys.readouterr().out


def test_serve_has_a_flag_for_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of("serve", capsys=capsys)
    for kind in (EngineConfig, ServerConfig):
        for name in kind.__struct_fields__:
            assert "--" + name.replace("_", "-") in text
    assert "--no-prefix-cache" in text


def test_generate_has_a_flag_for_every_described_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of("generate", capsys=capsys)
    without_flag = {"logit_bias", "logprobs"}  # a mapping, and an output that plain text does not show
    for name in set(SamplingParams.__struct_fields__) - without_flag:
        assert "--" + name.replace("_", "-") in text
    assert "(default: 128)" in text


@pytest.mark.parametrize(
    "command", [(), ("serve",), ("generate",), ("chat",), ("models",), ("models", "show"), ("doctor",)]
)
def test_every_command_has_help_that_fits_a_terminal(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = help_of(*command, capsys=capsys)
    assert text.startswith("Usage: octavo")
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("serv", EXIT_USAGE, "Did you mean 'serve'"),
        ("serve --max-num-runing 3", EXIT_USAGE, "--max-num-running"),
        ("serve --port eighty", EXIT_USAGE, "--port"),
        ("serve --port 65536 --explain", EXIT_USAGE, "port = 65536: expected int <= 65535"),
        ("serve --explain fake --executor cpu", EXIT_USAGE, "leave out one of them"),
        ("serve --explain --executor fake smollm2", EXIT_USAGE, "leave out one of them"),
        ("serve --explain fake --max-step-tokens 8", EXIT_USAGE, "below max_num_running = 64"),
        ("serve --explain fake --policy lottery", EXIT_USAGE, "lottery"),
        ("serve --explain fake --dtype float8", EXIT_USAGE, "unknown dtype 'float8'"),
        ("serve --explain --config /no/such.toml fake", EXIT_USAGE, "No such file"),
        ("serve --explain no-such-model", EXIT_FAILED, "no model 'no-such-model'"),
        ("generate --model no-such-model hello", EXIT_FAILED, "no model 'no-such-model'"),
        ("generate --model fake --temperature=-1 hello", EXIT_USAGE, "temperature = -1.0: expected float >= 0.0"),
        ("generate --model fake --executor cpu hello", EXIT_USAGE, "leave out one of them"),
        ("models show smollm3", EXIT_FAILED, "did you mean smollm2"),
        ("models show /", EXIT_FAILED, "no complete set of"),
        ("models pull", EXIT_USAGE, "Missing argument"),
        ("models push", EXIT_USAGE, "No such command 'push'"),
        ("chat --url ftp://here", EXIT_USAGE, "expected http://host:port"),
        ("chat --url http://127.0.0.1:9 --dtype float32", EXIT_USAGE, "leave them out"),
        ("chat --api-key-file x", EXIT_USAGE, "--url"),
    ],
)
def test_errors_are_one_line_with_an_exit_code(
    arguments: str, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments.split()) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("error: ")
    assert message in printed.err


def test_debugging_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTAVO_LOG", "debug")
    with pytest.raises(ConfigError):
        run(["serve", "--explain", "fake", "--policy", "lottery"])


def test_explain_says_who_decided(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "octavo.toml"
    file.write_text('model = "fake"\nmax_num_running = 5\nport = 9\nprefix_cache = false\n')
    assert run(["serve", "--explain", "--config", str(file), "--max-num-running", "6"]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert rows["model"][0] == "fake"
    assert rows["max_num_running"] == ["6", "the", "command", "line"]
    assert rows["port"] == ["9", "the", "config", "file"]
    assert rows["prefix_cache"] == ["no", "the", "config", "file"]
    assert rows["block_size"] == ["16", "default"]
    assert rows["executor"] == ["fake", "the", "model", "fake"]
    assert rows["num_threads"][1] == "auto:"
    assert set(EngineConfig.__struct_fields__) | set(ServerConfig.__struct_fields__) < set(rows)


def test_a_config_file_names_its_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "octavo.toml"
    file.write_text("model = 3\n")
    assert run(["serve", "--explain", "--config", str(file)]) == EXIT_USAGE
    assert "model = 3: expected the name of a model" in capsys.readouterr().err
    file.write_text("modle = 'fake'\n")
    assert run(["serve", "--explain", "--config", str(file)]) == EXIT_USAGE
    assert "did you mean 'model'" in capsys.readouterr().err
