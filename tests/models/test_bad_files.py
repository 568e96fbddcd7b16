"""Broken, truncated and hostile model folders: one clear error before anything large is allocated."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from octavo.errors import ModelNotFoundError, OctavoError, WeightFormatError
from octavo.models.load import load_model
from octavo.models.safetensors import INDEX, SINGLE, SafetensorsWeights
from support import tiny_models

UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    model = tiny_models.write(root / "folder", tiny_models.llama(num_hidden_layers=2))
    model.save_pretrained(root / "shards", max_shard_size="40KB")
    return root


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine / "folder", tmp_path / "folder"))


@pytest.fixture
def shards(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine / "shards", tmp_path / "shards"))


def load(folder: Path):
    return load_model(folder, torch.float32, torch.device("cpu"))


def change(folder: Path, edit) -> None:
    tensors = load_file(folder / SINGLE)
    edit(tensors)
    save_file(tensors, folder / SINGLE)


def change_header(folder: Path, edit) -> None:
    """Rewrite the JSON header alone, with whatever it says."""
    raw = (folder / SINGLE).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    (folder / SINGLE).write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 0.5, -1])
def test_truncated(folder, keep):
    raw = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(raw[: int(len(raw) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(WeightFormatError, match=f"{SINGLE}.*(truncated|corrupt)"):
        load(folder)


def test_header_claims(folder):
    raw = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(struct.pack("<Q", 1 << 62) + raw[8:])
    with pytest.raises(WeightFormatError, match="truncated or corrupt"):
        load(folder)
    (folder / SINGLE).write_bytes(struct.pack("<Q", 16) + b"x" * 16)
    with pytest.raises(WeightFormatError, match="not JSON"):
        load(folder)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("shape", [1 << 39, 1 << 39], "needs"),
        ("shape", [-1, 48], "expected sizes"),
        ("shape", "80", "lacks"),
        ("data_offsets", [0, 1 << 50], "needs"),
        ("data_offsets", [8, 0], "needs"),
        ("dtype", "I8", "I8; expected F32, F16, BF16"),
        ("dtype", "F16", "needs"),
    ],
)
def test_header_contradicts_itself(folder, field, value, said):
    change_header(folder, lambda header: header[UP].update({field: value}))
    with pytest.raises(WeightFormatError, match=said) as caught:
        load(folder)
    assert UP in caught.value.message


def test_overlapping_tensors(folder):
    """The safetensors library's own checks count as well."""
    name = "model.layers.0.mlp.up_proj.weight"
    change_header(folder, lambda header: header[UP].update(data_offsets=header[name]["data_offsets"]))
    with pytest.raises(WeightFormatError, match="not readable"):
        load(folder)


def test_missing_unexpected_and_misshapen_tensors(folder):
    whole = load_file(folder / SINGLE)
    change(folder, lambda tensors: tensors.pop(UP))
    with pytest.raises(WeightFormatError, match=f"1 of 21 tensors are missing, the first is {UP}"):
        load(folder)
    save_file({**whole, "model.layers.0.block_sparse_moe.gate.weight": torch.ones(2, 2)}, folder / SINGLE)
    with pytest.raises(WeightFormatError, match=r"no place in this llama model.*block_sparse_moe"):
        load(folder)
    save_file({**whole, UP: torch.ones(48, 80)}, folder / SINGLE)
    with pytest.raises(WeightFormatError, match=r"up_proj.weight has shape \(48, 80\).*\(80, 48\)"):
        load(folder)
    save_file({**whole, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}, folder / SINGLE)
    load(folder)  # a leftover of old checkpoints: computed, not read


def test_config_that_does_not_fit_the_weights(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 1 << 20, "vocab_size": 1 << 27}))
    with pytest.raises(WeightFormatError, match=r"embed_tokens.weight has shape"):
        load(folder)


def test_bad_index(shards):
    index = json.loads((shards / INDEX).read_text())
    load(shards)

    def with_map(**changes: object) -> None:
        (shards / INDEX).write_text(json.dumps({**index, "weight_map": {**index["weight_map"], **changes}}))

    for evil in ("../secret.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", 7):
        with_map(**{UP: evil})
        with pytest.raises(WeightFormatError, match="inside the folder"):
            load(shards)
    with_map(**{UP: "model-00099-of-00004.safetensors"})
    with pytest.raises(WeightFormatError, match="which is not there"):
        load(shards)
    with_map(**{"model.other.weight": index["weight_map"][UP]})
    with pytest.raises(WeightFormatError, match="does not have it"):
        load(shards)
    (shards / INDEX).write_text("{}")
    with pytest.raises(WeightFormatError, match="no weight_map"):
        load(shards)
    (shards / INDEX).unlink()
    with pytest.raises(ModelNotFoundError, match="never read"):
        load(shards)


def test_source_by_itself(folder):
    source = SafetensorsWeights(folder)
    assert source.get(UP).shape == source.shape(UP) == (80, 48) and UP in source.names()
    with pytest.raises(WeightFormatError, match="no tensor nope"):
        source.get("nope")
    with pytest.raises(WeightFormatError, match="expected"):
        source.read_into(UP, source.get("model.norm.weight"))
    source.close()


@pytest.mark.parametrize("seed", range(25))
def test_flipped_bytes_never_escape_the_error_tree(folder, seed):
    """Random damage to the header: a model with other numbers, or an OctavoError; nothing else."""
    raw = bytearray((folder / SINGLE).read_bytes())
    (length,) = struct.unpack("<Q", raw[:8])
    generator = torch.Generator().manual_seed(seed)
    for at in torch.randint(0, 8 + length, (3,), generator=generator).tolist():
        raw[at] = int(torch.randint(0, 256, (1,), generator=generator))
    (folder / SINGLE).write_bytes(raw)
    try:
        load(folder)
    except OctavoError:
        return
    damaged = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    assert len(damaged) >= 21
