"""Packed models on disk: found again, shared, never wrong, whatever happens to the files."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType as Q

from octavo.cli.main import run as octavo
from octavo.models import packed_cache as cache_module
from octavo.models.load import load_packed, open_weights
from octavo.models.pack import pack_model
from octavo.models.packed import PackedModel
from octavo.models.packed_cache import Header, cached, model_key
from octavo.models.packed_memory import allocate, checksum, has_small_pages, in_large_pages
from support import tiny_models
from support.gguf_files import write_model
from support.native_library import needs_native

pytestmark = needs_native


@pytest.fixture(autouse=True)
def _small_models_are_kept(monkeypatch: Any) -> None:
    monkeypatch.setattr(cache_module, "MIN_BYTES", 0)


class Packing:
    """Packs a small model, and counts how often."""

    def __init__(self, folder: Path) -> None:
        self.count, self.cache = 0, folder / "packed"
        self.path = write_model(folder / "m.gguf", Q.Q4_1)

    def pack(self) -> PackedModel:
        self.count += 1
        source = open_weights(self.path)
        try:
            return pack_model(source)
        finally:
            source.close()

    def load(self, options: str = "stored") -> PackedModel:
        return cached(self.path, options, self.cache, self.pack)

    @property
    def file(self) -> Path:
        (found,) = self.cache.glob("*.octavo")
        return found


@pytest.fixture
def packing(tmp_path: Path) -> Packing:
    return Packing(tmp_path)


def assert_same(one: PackedModel, other: PackedModel) -> None:
    assert one.config == other.config and one.tensors == other.tensors
    np.testing.assert_array_equal(one.memory, other.memory)


def test_the_second_start_maps_the_first_ones_file(packing: Packing) -> None:
    first, second, third = packing.load(), packing.load(), packing.load()
    assert packing.count == 1
    assert_same(first, second)
    assert not second.memory.flags.writeable and second.memory.ctypes.data % 64 == 0
    assert second.layers[1].down.struct.k == first.layers[1].down.struct.k
    np.testing.assert_array_equal(second.layers[1].down.memory, first.layers[1].down.memory)
    np.testing.assert_array_equal(third.layers[0].input_norm, first.layers[0].input_norm)
    assert second.head is second.embedding


@pytest.mark.parametrize("variant", ["llama-biases", "gemma3-untied-scaled-rope", "qwen3", "llama3-rope"])
def test_every_feature_of_a_model_comes_back(tmp_path: Path, variant: str) -> None:
    tiny_models.write(tmp_path / "model", tiny_models.VARIANTS[variant]())
    for weights in ("stored", "int4"):
        first, second = (load_packed(tmp_path / "model", weights, tmp_path / "packed") for _ in range(2))
        assert first.memory.flags.writeable and not second.memory.flags.writeable
        assert_same(first, second)
    assert len(list((tmp_path / "packed").glob("*.octavo"))) == 2


# --- the key ----------------------------------------------------------------------------------------------------------


def rewritten_with_its_old_times(path: Path) -> None:
    """One byte in the middle is another; size, inode and modification time are what they were."""
    before, raw = path.stat(), bytearray(path.read_bytes())
    raw[len(raw) // 2 + 99] ^= 1
    time.sleep(0.01)  # the kernel's clock for files ticks every few milliseconds
    path.write_bytes(raw)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns and path.stat().st_size == before.st_size


def replaced(path: Path) -> None:
    write_model(path.with_name("other.gguf"), Q.Q4_1, seed=1).replace(path)


@pytest.mark.parametrize("change", [rewritten_with_its_old_times, replaced])
def test_a_changed_model_is_packed_again(packing: Packing, change: Callable[[Path], None]) -> None:
    key = model_key(packing.path, "stored")
    packing.load()
    change(packing.path)
    assert model_key(packing.path, "stored") != key
    packing.load()
    assert packing.count == 2


def test_options_and_version_are_part_of_the_key(packing: Packing, monkeypatch: Any) -> None:
    keys = {model_key(packing.path, options) for options in ("stored", "int8", "int4")}
    monkeypatch.setattr(cache_module, "VERSION", cache_module.VERSION + 1)
    assert len(keys | {model_key(packing.path, "stored")}) == 4
    assert model_key(packing.path, "stored") == model_key(packing.path, "stored")


def test_a_folder_is_known_by_all_its_files(tmp_path: Path) -> None:
    tiny_models.write(tmp_path, tiny_models.VARIANTS["llama"]())
    key = model_key(tmp_path, "stored")
    config = tmp_path / "config.json"
    config.write_text(config.read_text() + " ")
    assert model_key(tmp_path, "stored") != key


def test_a_model_that_changes_meanwhile_is_not_kept(packing: Packing) -> None:
    def pack() -> PackedModel:
        model = packing.pack()
        replaced(packing.path)
        return model

    cached(packing.path, "stored", packing.cache, pack)
    assert not list(packing.cache.glob("*.octavo"))


# --- damage -----------------------------------------------------------------------------------------------------------


def damages(size: int) -> dict[str, Callable[[bytearray], None]]:
    def flip(at: int) -> Callable[[bytearray], None]:
        def damage(raw: bytearray) -> None:
            raw[at] ^= 0x10

        return damage

    def zeros(raw: bytearray) -> None:
        raw[-8192:-4096] = bytes(4096)

    cuts = {
        f"cut to {left}": lambda raw, left=left: raw.__delitem__(slice(left, None))
        for left in (0, 7, 55, 3000, size - 1)
    }
    flips = {
        f"flip {at}": flip(at) for at in (0, 9, 13, 17, 18, 30, 60, 500, -1, -5000, size - (size - (2 << 20)) // 2)
    }
    return {**cuts, **flips, "zeros": zeros, "longer": lambda raw: raw.extend(b"x" * 64)}


def test_damaged_files_are_made_again(packing: Packing) -> None:
    good = packing.load()
    whole = packing.file.read_bytes()
    for count, (name, damage) in enumerate(damages(len(whole)).items(), start=2):
        raw = bytearray(whole)
        damage(raw)
        packing.file.write_bytes(raw)
        assert_same(packing.load(), good)
        assert packing.count == count, name
        assert packing.file.read_bytes() == whole, name


def test_a_file_under_another_models_name_is_made_again(packing: Packing) -> None:
    packing.load()
    other = packing.cache / f"{model_key(packing.path, 'int8')}.octavo"
    shutil.copy(packing.file, other)
    packing.load("int8")
    assert packing.count == 2


@pytest.mark.parametrize("field", ["offset", "size", "spec", "missing", "layers", "bytes"])
def test_a_header_that_contradicts_itself_is_not_believed(packing: Packing, field: str) -> None:
    """Checksums right, contents wrong: what a bug in another version could have written."""
    model = packing.load()
    key, tensors, config, weight_bytes = packing.file.stem, list(model.tensors), model.config, model.weight_bytes
    matrix = next(index for index, tensor in enumerate(tensors) if tensor.matrix)
    vector = next(index for index, tensor in enumerate(tensors) if not tensor.matrix)
    replace = msgspec.structs.replace
    if field == "offset":
        tensors[-1] = replace(tensors[-1], offset=tensors[-1].offset + (1 << 40))
    elif field == "size":
        tensors[vector] = replace(tensors[vector], size=1 << 40)
    elif field == "spec":
        tensors[matrix] = replace(tensors[matrix], matrix=replace(tensors[matrix].matrix, k=32))
    elif field == "missing":
        del tensors[matrix]
    elif field == "layers":
        config = replace(config, num_layers=config.num_layers + 1)
    wrong = SimpleNamespace(
        config=config, tensors=tuple(tensors), memory=model.memory, weight_bytes=weight_bytes - 64 * (field == "bytes")
    )
    cache_module._store(wrong, packing.file, cache_module.Origin(key, "", ""))  # type: ignore[arg-type]
    assert_same(packing.load(), model)
    assert packing.count == 2


# --- company ----------------------------------------------------------------------------------------------------------


def test_threads_that_start_together_pack_once(packing: Packing) -> None:
    with ThreadPoolExecutor(6) as pool:
        models = list(pool.map(lambda _: packing.load(), range(6)))
    assert packing.count == 1
    for model in models[1:]:
        assert_same(model, models[0])


PROGRAM = """
import pathlib, sys
from octavo.models import load, packed_cache
packed_cache.MIN_BYTES = 0
print(load.load_packed(pathlib.Path(sys.argv[1]), cache=pathlib.Path(sys.argv[2])).memory.flags.writeable)
"""


def test_processes_that_start_together_pack_once(packing: Packing) -> None:
    words = [sys.executable, "-c", PROGRAM, str(packing.path), str(packing.cache)]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=100)[0].strip() for process in running]
    assert sorted(said) == ["False", "False", "True"]  # one packed into memory of its own, two mapped its file


def test_a_cache_that_cannot_be_written_is_done_without(packing: Packing, monkeypatch: Any) -> None:
    packing.cache.write_text("not a folder")
    packing.load()
    packing.cache.unlink()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    packing.load()
    assert packing.count == 2 and not list(packing.cache.glob("*.octavo"))


def test_a_small_model_is_not_kept(packing: Packing, monkeypatch: Any) -> None:
    monkeypatch.setattr(cache_module, "MIN_BYTES", 1 << 20)
    packing.load()
    assert not list(packing.cache.glob("*.octavo"))


def test_what_packing_raises_goes_through(packing: Packing) -> None:
    def pack() -> PackedModel:
        raise OSError("the disk with the model is gone")

    with pytest.raises(OSError, match="is gone"):
        cached(packing.path, "stored", packing.cache, pack)
    packing.load()
    assert packing.count == 1


def test_leftovers_are_removed_and_only_the_newest_files_stay(packing: Packing) -> None:
    packing.cache.mkdir()
    key = model_key(packing.path, "stored")
    leftover = packing.cache / f".part-{key[0]}-abc"
    leftover.write_bytes(b"half a model")
    for index in range(6):
        old = packing.cache / f"{index:064x}.octavo"
        old.write_bytes(b"old")
        os.utime(old, (1000 + index, 1000 + index))
    mapped = packing.load()
    assert not leftover.exists()
    kept = {file.name for file in packing.cache.glob("*.octavo")}
    assert kept == {f"{key}.octavo", *(f"{index:064x}.octavo" for index in (3, 4, 5))}
    mapped = packing.load()
    before = mapped.memory.copy()
    packing.cache.joinpath(f"{key}.octavo").unlink()
    np.testing.assert_array_equal(mapped.memory, before)


def test_headers_are_small_and_round_trip(packing: Packing) -> None:
    model = packing.load()
    header = Header("k", "m.gguf", "stored", model.config, model.tensors, model.weight_bytes, 1 << 63)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(header), type=Header) == header


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 63, 64, 1000, (4 << 20) - 1, (4 << 20) + 8, 9_000_003])
def test_the_checksum_sees_every_byte(size: int) -> None:
    memory = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    original = checksum(memory)
    assert original == checksum(memory.copy())
    assert original != checksum(np.append(memory, np.uint8(0)))
    for at in {0, size // 3, size // 2, size - 1} if size else ():
        for bit in (0, 7):
            memory[at] ^= 1 << bit
            assert checksum(memory) != original
            memory[at] ^= 1 << bit
    if size > 5_000_000:
        swapped = np.concatenate((memory[4 << 20 : 8 << 20], memory[: 4 << 20], memory[8 << 20 :]))
        assert checksum(swapped) != original
        high = memory.copy()
        high[[7, 7 + 64]] ^= 0x80  # the same bit of two words of a lane: must not cancel
        assert checksum(high) != original


@pytest.mark.skipif(not hasattr(mmap, "MADV_NOHUGEPAGE"), reason="Linux tells of page sizes")
def test_small_pages_are_replaced_by_large_ones() -> None:
    room = mmap.mmap(-1, 12 << 20)
    room.madvise(mmap.MADV_NOHUGEPAGE)
    memory = np.frombuffer(room, np.uint8)
    memory[:] = np.random.default_rng(0).integers(0, 256, len(memory), np.uint8)
    if not has_small_pages(memory.ctypes.data + 5):
        pytest.skip("this kernel offers no large pages")
    copy = in_large_pages(memory)
    assert copy is not memory
    np.testing.assert_array_equal(copy, memory)
    fresh = allocate(12 << 20)
    fresh[:] = 1
    assert in_large_pages(memory[: 1 << 20]).base is not None  # too small to be worth it: as it is
    assert has_small_pages(fresh.ctypes.data) or in_large_pages(fresh) is fresh


# --- what a person sees of it ------------------------------------------------------------------------------------------


def test_kept_files_are_listed_and_cleared(packing: Packing, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("OCTAVO_CACHE", str(tmp_path))
    packing.load("int8")
    mapped = packing.load("int8")
    time.sleep(0.01)
    packing.load()
    (packing.cache / f"{'0' * 64}.octavo").write_bytes(b"of long ago")
    os.utime(packing.cache / f"{'0' * 64}.octavo", (0, 0))
    assert octavo(["models", "packed", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["model"], row["weights"]) for row in rows] == [
        (str(packing.path), "stored"),
        (str(packing.path), "int8"),
        ("", ""),
    ]
    assert [row["size_bytes"] for row in rows] == [Path(row["path"]).stat().st_size for row in rows]
    assert octavo(["models", "packed"]) == 0
    text = capsys.readouterr().out
    assert f"3 in {packing.cache}" in text and "damaged, or of another version" in text and "\x1b" not in text
    (packing.cache / ".part-a-1").write_bytes(b"interrupted")
    assert octavo(["models", "clear-packed"]) == 0
    assert "freed" in capsys.readouterr().out
    assert [file for file in packing.cache.iterdir() if not file.name.startswith(".lock")] == []
    assert mapped.memory[:1000].sum() >= 0, "who has mapped a removed file keeps it"
    assert octavo(["models", "packed", "--json"]) == 0 and json.loads(capsys.readouterr().out) == []


def test_nothing_kept_is_no_error(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("OCTAVO_CACHE", str(tmp_path / "nowhere"))
    assert octavo(["models", "packed"]) == 0 and octavo(["models", "clear-packed"]) == 0
    assert not (tmp_path / "nowhere").exists()
    assert "0 in " in capsys.readouterr().out
