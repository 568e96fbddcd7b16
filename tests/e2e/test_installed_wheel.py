"""The wheel as a user installs it: a fresh environment, no compiler on the path, no optional package, a model generates."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from support import tiny_models
from support.installation import BLOCKER, OPTIONAL, ROOT
from support.native_library import needs_native


@pytest.fixture(scope="module")
def octavo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command in an environment that has the wheel, and this one's packages beside it."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    fresh = folder / "venv"
    venv.create(fresh, symlinks=True)
    python = fresh / "bin" / "python"
    words = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "-qq",
        "--no-index",
        "--no-deps",
        str(wheel),
    ]
    subprocess.run(words, check=True, env=without_paths(), capture_output=True)
    (packages,) = fresh.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return fresh / "bin" / "octavo"


def without_paths(**more: str) -> dict[str, str]:
    """The environment of a process that knows this checkout by nothing."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "COVERAGE_PROCESS_START")}
    return {**kept, **more}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    config = tiny_models.llama()
    tiny_models.write(folder, config)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[: config.vocab_size]
    tokenizer = Tokenizer(models.BPE({byte: i for i, byte in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@needs_native
def test_a_model_generates_without_a_compiler_and_without_torch(octavo: Path, model: Path, tmp_path: Path) -> None:
    environment = without_paths(
        PYTHONPATH=str(BLOCKER),
        OCTAVO_TEST_MISSING=",".join(OPTIONAL),
        OCTAVO_CACHE=str(tmp_path / "cache"),
        PATH=str(octavo.parent),
    )
    words = [
        "generate",
        "--model",
        str(model),
        "once",
        "--max-tokens",
        "5",
        "--temperature",
        "0",
        "--ignore-eos",
        "--stats",
    ]
    done = subprocess.run([octavo, *words], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "5 output tokens" in done.stderr
    assert done.stdout.strip()
    found = [octavo.with_name("python"), "-c", "import octavo; print(octavo.__file__)"]
    where = subprocess.run(found, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert Path(where).is_relative_to(octavo.parents[1])
