"""Names: what the model registry knows and what a name given by a user stands for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from octavo.errors import ModelNotFoundError, UnsupportedModelError
from octavo.folders import cache_folder
from octavo.models.gguf_config import ARCHITECTURES
from octavo.models.registry import cached_path, find_model, is_fetched, model_registry


def test_every_entry_says_where_it_comes_from_and_what_it_must_hash_to() -> None:
    names = [name for entry in model_registry().entries for name in (entry.name, *entry.aliases)]
    assert len(names) == len(set(names))
    for entry in model_registry().entries:
        assert entry.name == entry.name.lower() and all(alias == alias.lower() for alias in entry.aliases)
        assert entry.licence and entry.licence_url.startswith("https://") and entry.description
        assert entry.architecture in {*ARCHITECTURES, "mistral"}
        assert bool(entry.hf) != bool(entry.packages)
        if entry.hf:
            assert re.fullmatch(r"[\w.-]+/[\w.-]+", entry.hf)
            continue
        assert entry.file.endswith(".gguf") and "/" not in entry.file and entry.size_bytes > 0
        hashes = [entry.file_sha256, *(package.wheel_sha256 for package in entry.packages)]
        assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in hashes)
        assert any(package.members for package in entry.packages)
        assert any(package.notices for package in entry.packages)


def test_find_ignores_case_and_knows_aliases() -> None:
    found = model_registry().find("  SmolLM2 ")
    assert found is not None and found.name == "smollm2-135m-instruct"
    assert model_registry().find("smollm2-135m-instruct") == found
    assert model_registry().find("smollm3") is None


def test_an_unknown_name_suggests_what_was_meant() -> None:
    with pytest.raises(ModelNotFoundError, match="did you mean smollm2"):
        find_model("smolm2")
    with pytest.raises(ModelNotFoundError, match="for a hub model write hf://some-org/some-model"):
        find_model("some-org/some-model")
    with pytest.raises(ModelNotFoundError, match="known: smollm2-135m-instruct, gemma3-270m"):
        find_model("./nothing/here/at-all")
    with pytest.raises(ModelNotFoundError, match=r"there is no file models/x\.gguf"):
        find_model("models/x.gguf")


def test_a_gguf_file_and_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "My Model.GGUF"
    file.write_bytes(b"GGUF")
    resolved = find_model(str(file))
    assert (resolved.name, resolved.path, resolved.format, resolved.entry) == ("My Model", file, "gguf", None)
    assert find_model(str(tmp_path)) == resolved
    (tmp_path / "second.gguf").write_bytes(b"GGUF")
    with pytest.raises(UnsupportedModelError, match=r"2 \.gguf files"):
        find_model(str(tmp_path))


def test_other_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "pytorch_model.bin"
    file.write_bytes(b"\x80")
    with pytest.raises(UnsupportedModelError, match=r"not a \.gguf file"):
        find_model(str(file))


def test_a_safetensors_folder_must_have_all_shards(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"")
    with pytest.raises(UnsupportedModelError, match="no complete set"):
        find_model(str(folder))
    (folder / "config.json").write_text("{}")
    with pytest.raises(UnsupportedModelError, match="no complete set"):
        find_model(str(folder))
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"")
    resolved = find_model(str(folder))
    assert (resolved.name, resolved.path, resolved.format) == ("model", folder, "safetensors")


def test_fake_is_a_name_without_a_model() -> None:
    assert find_model("fake").format == "fake"


def test_cache_folder_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OCTAVO_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "octavo"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert cache_folder() == tmp_path / ".cache" / "octavo"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "octavo"
    monkeypatch.setenv("OCTAVO_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "mine"
    entry = model_registry().entries[0]
    assert cached_path(entry) == tmp_path / "mine" / "models" / entry.name / entry.file
    assert not is_fetched(entry)


def test_the_model_registry_loads_without_torch_or_the_hub() -> None:
    code = (
        "import sys, octavo.models.registry as c, octavo.models.gguf, octavo.models.memory; c.model_registry(); "
        "print([name for name in ('torch', 'huggingface_hub', 'transformers') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"
