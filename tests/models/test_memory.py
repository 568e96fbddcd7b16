"""The memory estimate against shapes counted one by one."""

from __future__ import annotations

from math import prod

import pytest

from octavo.errors import ConfigError
from octavo.models.config import TransformerConfig
from octavo.models.memory import Workload, estimate
from octavo.models.shapes import tensor_shapes

PLAIN = TransformerConfig(
    architecture="llama",
    vocab_size=320,
    hidden_size=48,
    intermediate_size=80,
    num_layers=3,
    num_heads=6,
    num_kv_heads=2,
    head_dim=16,
    max_position=128,
)


def variant(**changes: object) -> TransformerConfig:
    return TransformerConfig(**{field: getattr(PLAIN, field) for field in PLAIN.__struct_fields__} | changes)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("gemma", [False, True])
def test_weight_bytes_are_the_sum_of_all_shapes(tied: bool, biases: bool, gemma: bool) -> None:
    config = variant(
        tie_word_embeddings=tied,
        qkv_bias=biases,
        attention_output_bias=biases,
        mlp_bias=biases,
        qk_norm=gemma,
        post_norms=gemma,
    )
    num_elements = sum(prod(shape) for shape in tensor_shapes(config).values())
    assert config.num_parameters == num_elements
    assert estimate(config, dtype="bfloat16").weight_bytes == 2 * num_elements
    assert ("lm_head.weight" in tensor_shapes(config)) is not tied


def test_kv_bytes_count_whole_blocks_of_every_request() -> None:
    result = estimate(
        PLAIN, kv_dtype="float32", workload=Workload(num_requests=3, num_tokens=17, step_tokens=8, block_size=16)
    )
    assert result.kv_bytes_per_token == 2 * 3 * 2 * 16 * 4
    assert result.kv_cache_bytes == 3 * 2 * 16 * result.kv_bytes_per_token
    assert result.total_bytes == result.weight_bytes + result.kv_cache_bytes + result.activation_bytes


def test_activations_grow_with_the_step_and_the_sampling_rows() -> None:
    small = estimate(PLAIN, workload=Workload(num_requests=1, step_tokens=4)).activation_bytes
    longer = estimate(PLAIN, workload=Workload(num_requests=1, step_tokens=8)).activation_bytes
    wider = estimate(PLAIN, workload=Workload(num_requests=4, step_tokens=4)).activation_bytes
    assert small < longer
    assert wider - small == 3 * 320 * 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"dtype": "int3"}, "unknown dtype 'int3'"),
        ({"kv_dtype": "fp4"}, "unknown kv_dtype"),
        ({"workload": Workload(num_tokens=0)}, "num_tokens = 0"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        estimate(PLAIN, **arguments)  # type: ignore[arg-type]
