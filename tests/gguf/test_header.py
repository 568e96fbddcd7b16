"""The header reader: what sound files say, and that no broken file does more than raise."""

from __future__ import annotations

import random
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from gguf import GGUFReader, GGUFWriter
from octavo.errors import ModelNotFoundError, UnsupportedModelError, WeightFormatError
from octavo.gguf.header import TENSOR_TYPES, read_gguf_header, read_gguf_metadata
from octavo.models.gguf import GGUFWeights
from support.gguf_files import write_model

EXPECTED = (WeightFormatError, UnsupportedModelError)


def test_block_sizes_are_the_librarys() -> None:
    for type_id, (name, elements, num_bytes) in TENSOR_TYPES.items():
        kind = GGMLQuantizationType(type_id)
        assert kind.name == name
        assert GGML_QUANT_SIZES[kind] == (elements, num_bytes)


def test_metadata_of_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "kinds.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_uint8("u8", 200)
    writer.add_int8("i8", -7)
    writer.add_uint16("u16", 60000)
    writer.add_int16("i16", -300)
    writer.add_uint32("u32", 4_000_000_000)
    writer.add_int32("i32", -5)
    writer.add_float32("f32", 0.25)
    writer.add_uint64("u64", 1 << 60)
    writer.add_int64("i64", -(1 << 60))
    writer.add_float64("f64", 1e-300)
    writer.add_bool("yes", True)
    writer.add_string("word", "naïve ☕")
    writer.add_array("words", ["a", "", "▁ü"])
    writer.add_array("numbers", [1, -2, 3])
    writer.add_array("flags", [True, False])
    finish(writer)
    metadata = read_gguf_metadata(path)
    assert [metadata.integer(key) for key in ("u8", "i8", "u16", "i16", "u32")] == [200, -7, 60000, -300, 4_000_000_000]
    assert [metadata.need_integer(key) for key in ("i32", "u64", "i64")] == [-5, 1 << 60, -(1 << 60)]
    assert (metadata.number("f32"), metadata.need_number("f64"), metadata.number("i32")) == (0.25, 1e-300, -5.0)
    assert metadata.flag("yes") is True and metadata.flag("missing", True) is True
    assert metadata.need_text("word") == "naïve ☕" == metadata["word"]
    assert metadata.texts("words") == ["a", "", "▁ü"] == metadata["words"] and metadata.texts("missing") == []
    np.testing.assert_array_equal(metadata.numbers("numbers"), [1, -2, 3])
    assert metadata.numbers("flags").tolist() == [True, False]
    assert len(metadata) == len(list(metadata)) == 16


def test_accessors_refuse_other_kinds(tmp_path: Path) -> None:
    path = tmp_path / "wrong.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_bool("flag", True)
    writer.add_float32("nan", float("nan"))
    writer.add_array("words", ["a"])
    finish(writer)
    metadata = read_gguf_metadata(path)
    for access, key in [
        (metadata.integer, "flag"),
        (metadata.number, "flag"),
        (metadata.number, "nan"),
        (metadata.text, "flag"),
        (metadata.flag, "words"),
        (metadata.numbers, "words"),
        (metadata.texts, "flag"),
    ]:
        with pytest.raises(WeightFormatError, match=f"'{key}' must be"):
            access(key)
    for need in (metadata.need_text, metadata.need_integer, metadata.need_number):
        with pytest.raises(WeightFormatError, match="lacks the metadata key 'missing'"):
            need("missing")


def test_tensors_lie_where_the_library_finds_them(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.gguf")
    header = read_gguf_header(path)
    reference = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    assert header.tensors.keys() == reference.keys()
    for name, info in header.tensors.items():
        assert info.offset == reference[name].data_offset
        assert info.num_bytes == reference[name].n_bytes
        assert info.shape == tuple(reversed(reference[name].shape.tolist()))


def finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# --- files written by hand, to say what no writer would ----------------------------------------------------------------


def string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def u32_key(name: str, value: int) -> bytes:
    return string(name) + struct.pack("<II", 4, value)


def tensor(name: str, dims: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def gguf(
    *parts: bytes, num_tensors: int = 0, num_keys: int = 0, magic: bytes = b"GGUF", version: int = 3, data: int = 0
) -> bytes:
    head = struct.pack("<4sIQQ", magic, version, num_tensors, num_keys) + b"".join(parts)
    return head + bytes(-len(head) % 32 + data)


def array(name: str, kind: int, count: int, payload: bytes = b"") -> bytes:
    return string(name) + struct.pack("<IIQ", 9, kind, count) + payload


BROKEN = {
    "empty": (b"", "truncated"),
    "magic": (gguf(magic=b"GGML"), "not a GGUF file"),
    "version 1": (gguf(version=1), "version 1; octavo reads 2 and 3"),
    "big-endian": (gguf(version=3 << 24), "big-endian"),
    "a billion keys": (gguf(num_keys=1 << 30), "claims 1073741824 metadata keys"),
    "2^63 tensors": (gguf(num_tensors=1 << 63), "claims 0 metadata keys and 9223372036854775808 tensors"),
    "keys that are not there": (gguf(num_keys=3), "truncated|string"),
    "a key of 2^62 bytes": (gguf(struct.pack("<Q", 1 << 62), num_keys=1), "the limit is 65536"),
    "a string of 8 EB": (gguf(string("k"), struct.pack("<IQ", 8, 1 << 63), num_keys=1), "the limit is 16777216"),
    "an array of 2^60 bytes": (gguf(array("k", 0, 1 << 60), num_keys=1), "claims 1152921504606846976 elements"),
    "an array past the end": (gguf(array("k", 12, 1 << 20), num_keys=1), "needs 8388608 bytes"),
    "strings past the end": (gguf(array("k", 8, 1 << 20), num_keys=1), "more than the file can hold"),
    "arrays of arrays": (gguf(array("k", 9, 1, struct.pack("<IQ", 9, 1)), num_keys=1), "unknown value type 9"),
    "an unknown type": (gguf(string("k"), struct.pack("<II", 77, 0), num_keys=1), "unknown value type 77"),
    "a key twice": (gguf(u32_key("k", 1), u32_key("k", 2), num_keys=2), "appears twice"),
    "not UTF-8": (gguf(struct.pack("<Q", 2) + b"\xff\xfe", num_keys=1), "not UTF-8"),
    "no dimensions": (gguf(tensor("t", ()), num_tensors=1, data=64), "0 dimensions"),
    "2^31 dimensions": (gguf(string("t"), struct.pack("<I", 1 << 31), num_tensors=1, data=64), "2147483648 dimensions"),
    "a zero dimension": (gguf(tensor("t", (4, 0)), num_tensors=1, data=64), "impossible dimensions"),
    "a product of 2^64": (gguf(tensor("t", (1 << 32, 1 << 32)), num_tensors=1, data=64), "truncated"),
    "part of a block": (gguf(tensor("t", (33,), 8), num_tensors=1, data=64), "impossible dimensions"),
    "an unsupported type": (
        gguf(tensor("t", (256,), 23), num_tensors=1, data=256),
        "has type IQ4_XS; octavo reads F32",
    ),
    "a type from nowhere": (gguf(tensor("t", (256,), 999), num_tensors=1, data=256), "number 999"),
    "an offset past the end": (gguf(tensor("t", (4,), 0, 1 << 40), num_tensors=1, data=64), "truncated"),
    "an offset that wraps": (gguf(tensor("t", (4,), 0, (1 << 64) - 32), num_tensors=1, data=64), "truncated"),
    "a crooked offset": (gguf(tensor("t", (4,), 0, 4), num_tensors=1, data=64), "misaligned"),
    "overlapping tensors": (gguf(tensor("a", (16,)), tensor("b", (16,), 0, 32), num_tensors=2, data=128), "overlaps"),
    "one name twice": (gguf(tensor("a", (8,)), tensor("a", (8,), 0, 32), num_tensors=2, data=64), "appears twice"),
    "an odd alignment": (gguf(u32_key("general.alignment", 33), num_keys=1), "not a power of two"),
    "a huge alignment": (gguf(u32_key("general.alignment", 1 << 31), num_keys=1), "not a power of two"),
    "a split model": (gguf(u32_key("split.count", 2), num_keys=1), "one part of a split model"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_say_what_is_wrong(tmp_path: Path, case: str) -> None:
    content, words = BROKEN[case]
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(EXPECTED, match=words) as caught:
        read_gguf_header(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "broken.gguf" in str(caught.value) and len(str(caught.value)) < 400
    assert peak < 4 << 20


def test_a_missing_file_and_a_folder_are_not_found(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.gguf", tmp_path):
        with pytest.raises(ModelNotFoundError):
            read_gguf_header(path)


@pytest.mark.parametrize("seed", range(4))
def test_random_damage_never_does_more_than_raise(tmp_path: Path, seed: int) -> None:
    """Flip, overwrite, insert or cut bytes anywhere; reading every weight either works or raises one of two errors."""
    rng = random.Random(seed)
    sound = write_model(tmp_path / "sound.gguf", seed=seed).read_bytes()
    path = tmp_path / "damaged.gguf"
    outcomes = {"sound": 0, "raised": 0}
    for _ in range(100):
        path.write_bytes(damaged(sound, rng))
        tracemalloc.start()
        try:
            read_everything(path)
            outcomes["sound"] += 1
        except EXPECTED as error:
            assert "\n" not in str(error).strip() and len(str(error)) < 600
            outcomes["raised"] += 1
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak < 16 << 20
    assert outcomes["raised"] > 20 and outcomes["sound"] > 0


def test_every_truncation_of_the_header_raises(tmp_path: Path) -> None:
    sound = write_model(tmp_path / "sound.gguf").read_bytes()
    path = tmp_path / "short.gguf"
    for length in [*range(0, 3000, 7), len(sound) // 2, len(sound) - 33]:
        path.write_bytes(sound[:length])
        with pytest.raises(WeightFormatError):
            read_gguf_header(path)


def damaged(sound: bytes, rng: random.Random) -> bytes:
    data = bytearray(sound)
    header_end = 4000
    where = rng.randrange(header_end if rng.random() < 0.8 else len(data))
    kind = rng.randrange(5)
    if kind == 0:
        data[where] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[where : where + 8] = struct.pack("<Q", rng.choice([0, 1, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1]))
    elif kind == 2:
        data[where:where] = rng.randbytes(rng.randrange(1, 9))
    elif kind == 3:
        del data[where:]
    else:
        data[where : where + rng.randrange(1, 40)] = rng.randbytes(rng.randrange(1, 40))
    return bytes(data)


def read_everything(path: Path) -> None:
    metadata = read_gguf_metadata(path)
    for key in metadata:
        assert metadata[key] is not None
    weights = GGUFWeights(path)
    try:
        for name in weights.names():
            assert np.isfinite(weights.get(name)).all()
    finally:
        weights.close()
