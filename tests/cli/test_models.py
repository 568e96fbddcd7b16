"""`octavo models` and `octavo doctor`: what they say about models and machines, without loading or fetching anything."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

import pytest

from octavo.cli import doctor
from octavo.cli.main import run
from octavo.cli.output import FetchProgress, format_bytes, format_count
from octavo.config import DEFAULT_MODEL
from octavo.hardware import GPU, Hardware
from octavo.kernels.native import build, library
from octavo.models.registry import model_registry
from support.native_library import needs_native


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OCTAVO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "cache"


def write_model(folder: Path) -> Path:
    """A Llama of 2 layers as transformers would write it."""
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 100,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {
        "model.embed_tokens.weight": np.zeros((100, 32), np.float16),
        "model.norm.weight": np.ones(32, np.float32),
    }
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_list_as_json_is_the_model_registry(empty_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [entry.name for entry in model_registry().entries]
    assert not any(row["fetched"] for row in rows)
    assert all(row["licence"] and row["source"] for row in rows)


def test_list_in_a_pipe_keeps_a_row_on_a_line(empty_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "list"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) == 1 + len(model_registry().entries)
    assert f"{DEFAULT_MODEL} (default)" in text
    assert "\x1b" not in text


def test_show_of_a_model_that_is_not_here_says_how_to_fetch_it(
    empty_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["models", "show", "gemma3"]) == 0
    text = capsys.readouterr().out
    assert "octavo models pull gemma3-270m" in text
    assert "Gemma Terms of Use" in text
    assert not empty_cache.exists()


def test_show_does_the_arithmetic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_model(tmp_path / "tiny")
    options = ["--tokens", "100", "--requests", "3", "--dtype", "float32", "--kv-dtype", "float16", "--json"]
    assert run(["models", "show", str(folder), *options]) == 0
    facts = json.loads(capsys.readouterr().out)
    per_layer = 32 * 32 * 2 + 2 * 32 * 16 + 3 * 32 * 48 + 2 * 32
    assert facts["num_parameters"] == 2 * per_layer + 100 * 32 + 32
    assert facts["weight_bytes"] == 4 * facts["num_parameters"]
    assert facts["kv_bytes_per_token"] == 2 * 2 * 2 * 8 * 2
    assert facts["kv_cache_bytes"] == 3 * 7 * 16 * facts["kv_bytes_per_token"]  # ceil(100 / 16) = 7 blocks each
    assert facts["total_bytes"] == facts["weight_bytes"] + facts["kv_cache_bytes"] + facts["activation_bytes"]
    assert facts["fits"] is True
    assert facts["stored_as"] == "F16 99 %, F32 1 %"


def test_show_says_when_it_does_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Hardware(num_cores=1, memory_bytes=1 << 20, available_bytes=1 << 16)
    monkeypatch.setattr("octavo.engine.build.usable_hardware", lambda: small)
    assert run(["models", "show", str(write_model(tmp_path / "tiny")), "--tokens", "256"]) == 0
    assert "does NOT fit here, 64.0 KiB free" in capsys.readouterr().out


def test_show_refuses_more_tokens_than_the_context(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "show", str(write_model(tmp_path / "tiny")), "--tokens", "257"]) == 2
    assert "tiny was made for 256 positions" in capsys.readouterr().err


def test_show_of_a_broken_model_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF\x03\x00")
    assert run(["models", "show", str(file)]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_doctor_here(empty_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["can_serve"] is True
    found = {
        finding["what"]: finding["found"] for part in ("machine", "software", "settings") for finding in said[part]
    }
    assert "usable" in found["cores"]
    assert found["default model"].endswith("octavo serve fetches it")
    assert "num_blocks" not in found  # depends on a model that is not here
    assert run(["doctor"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("Ready: octavo serve")


def test_doctor_names_what_is_missing(
    empty_cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "httptools":
            raise metadata.PackageNotFoundError(name)
        return "0.1" if name == "uvicorn" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    assert run(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "pip install 'httptools>=" in text
    assert "pip install 'uvicorn>=" in text
    assert "2 thing(s) to fix" in text
    assert "octavo serve will use" not in text


def test_doctor_and_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTAVO_CACHE", str(tmp_path / "not" / "yet"))
    assert not doctor._disk(tmp_path / "not" / "yet").fatal
    (tmp_path / "file").touch()
    finding = doctor._disk(tmp_path / "file" / "cache")
    assert finding.fatal
    assert "OCTAVO_CACHE" in finding.fix
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1 << 20})())
    assert "free 512 MiB" in doctor._disk(tmp_path / "cache").fix


def test_doctor_and_the_native_kernels(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(name: str) -> str | None:
        return "/usr/bin/apt-get" if name == "apt-get" else None

    monkeypatch.setattr(build, "LIBRARY", tmp_path / "liboctavo.so")
    monkeypatch.setattr("shutil.which", nothing)
    finding = doctor._native_kernels()
    assert (finding.found, finding.fatal) == ("not built", False)
    assert "torch" in finding.fix
    assert finding.fix.endswith("(sudo apt-get install g++), then octavo doctor --build-native")
    monkeypatch.setitem(sys.modules, "torch", None)
    finding = doctor._native_kernels()
    assert finding.fatal
    assert finding.fix.startswith("install a C++ compiler (sudo apt-get install g++)")
    assert finding.fix.endswith("-m pip install 'octavo[torch]'")
    assert run(["doctor", "--build-native"]) == 1
    assert "no C++ compiler" in capsys.readouterr().err
    monkeypatch.undo()
    (tmp_path / "liboctavo.so").write_bytes(build.MARKER + b"0123456789abcdef")
    monkeypatch.setattr(build, "LIBRARY", tmp_path / "liboctavo.so")
    assert "built from other sources" in doctor._native_kernels().found


@needs_native
def test_doctor_names_the_instruction_set() -> None:
    finding = doctor._native_kernels()
    assert finding.fix == ""
    assert finding.found.startswith(f"for {library.best_isa()}, ")


def test_doctor_and_a_gpu_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    machine = Hardware(4, 8 << 30, 4 << 30, frozenset({"sse2"}), (GPU("Test GPU", 80 << 30, "9.0"),), 2, "Test CPU")
    finding = doctor._torch(machine)
    assert "cannot use the GPU" in finding.found
    assert "pip install" in finding.fix
    assert not finding.fatal
    monkeypatch.setitem(sys.modules, "torch", None)
    finding = doctor._torch(machine)
    assert finding.fix.startswith("to use the GPU: ") and finding.fix.endswith("'octavo[gpu]'")
    assert any("Test GPU, 80.0 GiB, compute capability 9.0" in one.found for one in doctor._machine(machine))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (200 << 20, "200 MiB"),
        (3 << 40, "3.0 TiB"),
        (1 << 60, "1048576.0 TiB"),
    ],
)
def test_bytes_for_people(number: int, text: str) -> None:
    assert format_bytes(number) == text


@pytest.mark.parametrize(("number", "text"), [(7, "7"), (1500, "1.5 k"), (134515008, "134.5 M"), (7 * 10**9, "7.0 B")])
def test_counts_for_people(number: int, text: str) -> None:
    assert format_count(number) == text


def test_progress_in_a_pipe_is_a_line_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with FetchProgress() as progress:
        for stage in ("downloading", "checking"):
            for done in (0, 1 << 20, 2 << 20):
                progress(stage, done, 2 << 20)
        progress("waiting", 0, 0)
    assert capsys.readouterr().err.splitlines() == ["downloading (2.0 MiB)", "checking (2.0 MiB)", "waiting"]
