"""`auto` becomes a choice with a reason; contradictions and the impossible are refused."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from octavo.config import EngineConfig, from_mapping
from octavo.engine.resolve import resolve
from octavo.errors import ConfigError, MissingPackageError
from octavo.hardware import GPU, Hardware
from octavo.models.config import TransformerConfig

MODEL = TransformerConfig(
    architecture="llama",
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_layers=30,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    max_position=8192,
    tie_word_embeddings=True,
)


def hardware(memory: int = 16 << 30, isa: frozenset[str] = frozenset({"avx2"}), gpus: tuple[GPU, ...] = ()) -> Hardware:
    return Hardware(num_cores=4, memory_bytes=memory, available_bytes=memory, isa=isa, gpus=gpus)


H200 = GPU("NVIDIA H200", 140 << 30, "9.0")


def test_the_parameter_count_is_the_models() -> None:
    assert MODEL.num_parameters == 134_515_008


def test_on_a_laptop() -> None:
    resolution = resolve(EngineConfig(), MODEL, hardware())
    config = resolution.config
    assert (config.executor, config.dtype, config.kv_dtype, config.num_threads) == ("cpu", "float32", "float32", 4)
    assert (config.max_model_len, config.num_blocks, config.max_step_tokens) == (8192, 2048, 512)
    assert set(resolution.reasons) == {
        "executor", "dtype", "kv_dtype", "num_threads", "max_model_len", "num_blocks", "max_step_tokens",
    }  # fmt: skip
    assert all(resolution.reasons.values())


def test_the_cache_has_room_for_all_that_may_run() -> None:
    """512 tokens each, within an eighth of the memory (blocks of 16 tokens, 720 KiB each); never less than one context."""
    for running, memory, blocks in ((64, 24 << 30, 2048), (8, 24 << 30, 512), (64, 8 << 30, 1456), (64, 3 << 30, 546)):
        resolution = resolve(EngineConfig(max_num_running=running), MODEL, hardware(memory))
        assert resolution.config.num_blocks == blocks, resolution.reasons["num_blocks"]


def test_with_native_kernels() -> None:
    machine = replace(hardware(), native_isa="avx2")
    resolution = resolve(EngineConfig(), MODEL, machine, weight_bytes=100 << 20)
    config = resolution.config
    assert (config.executor, config.dtype, config.kv_dtype) == ("native", "stored", "bfloat16")
    assert resolve(config, MODEL, machine).config == config
    assert "avx2" in resolution.reasons["executor"]
    assert (
        resolve(EngineConfig(executor="native", dtype="int4", kv_dtype="int8"), MODEL, machine).config.dtype == "int4"
    )


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"dtype": "float32"}, "dtype = float32 is not theirs"),
        ({"kv_dtype": "float16"}, "kv_dtype = float16 is not theirs"),
        ({"block_size": 24}, "not a multiple of 16"),
    ],
)
def test_what_native_kernels_cannot_do_torch_does(settings: dict[str, object], why: str) -> None:
    machine = replace(hardware(), native_isa="avx2")
    resolution = resolve(from_mapping(EngineConfig, settings), MODEL, machine)
    assert resolution.config.executor == "cpu" and why in resolution.reasons["executor"]
    with pytest.raises(ConfigError, match="executor = native cannot run"):
        resolve(from_mapping(EngineConfig, {**settings, "executor": "native"}), MODEL, machine)


def test_native_kernels_that_are_not_built() -> None:
    assert "not built" in resolve(EngineConfig(), MODEL, hardware()).reasons["executor"]
    with pytest.raises(ConfigError, match="octavo doctor"):
        resolve(EngineConfig(executor="native"), MODEL, hardware())
    with pytest.raises(ConfigError, match="num_draft_tokens = 3 needs executor = native"):
        resolve(EngineConfig(num_draft_tokens=3), MODEL, hardware())
    with pytest.raises(ConfigError, match="dtype = int8 is not for executor = cpu"):
        resolve(EngineConfig(dtype="int8"), MODEL, hardware())


def test_without_torch_a_gpu_is_left_alone_and_what_needs_torch_says_so() -> None:
    machine = replace(hardware(), native_isa="avx2", has_torch=False)
    resolution = resolve(EngineConfig(), MODEL, machine)
    assert resolution.config.executor == "native" and "torch, which GPUs need" in resolution.reasons["executor"]
    odd = msgspec.structs.replace(MODEL, head_dim=20)
    for config, model, why in (
        (EngineConfig(executor="cuda"), MODEL, "the torch executors need torch"),
        (EngineConfig(), odd, "head size 20 is not a multiple of 8 up to 256; the torch executors need torch"),
    ):
        with pytest.raises(MissingPackageError, match=why):
            resolve(config, model, machine)


def test_resolving_twice_changes_nothing() -> None:
    once = resolve(EngineConfig(), MODEL, hardware()).config
    again = resolve(once, MODEL, hardware())
    assert again.config == once
    assert again.reasons == {}


@pytest.mark.parametrize(
    ("isa", "dtype"), [({"avx512_bf16"}, "bfloat16"), ({"amx_bf16"}, "bfloat16"), (set(), "float32")]
)
def test_bfloat16_only_where_the_cpu_has_it(isa: set[str], dtype: str) -> None:
    assert resolve(EngineConfig(), MODEL, hardware(isa=frozenset(isa))).config.dtype == dtype


def test_on_a_gpu() -> None:
    config = resolve(EngineConfig(), MODEL, hardware(gpus=(H200,))).config
    assert (config.executor, config.dtype, config.kv_dtype, config.max_step_tokens) == (
        "cuda",
        "bfloat16",
        "bfloat16",
        2048,
    )
    assert config.num_blocks * 16 * MODEL.kv_bytes_per_token(2) < (140 << 30) * 0.9


def test_little_memory_gives_a_smaller_cache_and_says_why() -> None:
    resolution = resolve(EngineConfig(), MODEL, hardware(memory=600 << 20))
    assert 0 < resolution.config.num_blocks < 512
    assert "half of the available memory" in resolution.reasons["num_blocks"]


@pytest.mark.parametrize(
    ("settings", "memory", "says"),
    [
        ({"executor": "tpu"}, 16, "unknown executor 'tpu'; known: auto, native, cpu, cuda, fake"),
        ({"executor": "cuda"}, 16, "no NVIDIA GPU"),
        ({"dtype": "int3"}, 16, "unknown dtype 'int3'; known: auto, float32"),
        ({"kv_dtype": "fp8"}, 16, "unknown kv_dtype"),
        ({"num_threads": 5}, 16, "only 4 cores are usable"),
        ({"max_model_len": 9000}, 16, "made for 8192 positions"),
        ({"num_blocks": 10**6}, 16, "there is room for"),
        ({"max_step_tokens": 8}, 16, "below max_num_running = 64"),
        ({"policy": "lifo"}, 16, "unknown policy 'lifo'"),
        ({}, 0.4, "the model does not fit"),
    ],
)
def test_the_impossible_is_refused_with_the_reason(settings: dict[str, object], memory: float, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        resolve(from_mapping(EngineConfig, settings), MODEL, hardware(memory=int(memory * 2**30)))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"block_sise": 16}, r"unknown setting 'block_sise'; did you mean 'block_size'\?"),
        ({"zzz": 1}, "unknown setting 'zzz'; known: executor, dtype"),
        ({"block_size": 0}, "block_size = 0: expected int >= 1"),
        ({"num_blocks": "many"}, "num_blocks = 'many': expected int"),
    ],
)
def test_bad_settings_are_named(values: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        from_mapping(EngineConfig, values)
