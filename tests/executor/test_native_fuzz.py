"""Whatever integers reach the native step, it refuses them or stays inside its arrays; the debug build checks every access."""

from __future__ import annotations

from array import array

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octavo.executor.flat import FlatBatch
from octavo.executor.native_cache import NativeCache
from octavo.executor.native_step import NativeStep, StepLimits
from octavo.kernels.native import structs
from octavo.models.load import load_packed
from support import tiny_models
from support.native_library import needs_native

NUM_BLOCKS, BLOCK_SIZE, MOST_ROWS = 6, 16, 40
CANARY = np.float32(12345.0)


@pytest.fixture(scope="module")
def step(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_models.write(folder, tiny_models.mistral(num_hidden_layers=1))
    packed = load_packed(folder, "stored")
    shape = structs.KvShape(
        structs.KvType.BF16, NUM_BLOCKS, BLOCK_SIZE, packed.config.num_kv_heads, packed.config.head_dim
    )
    step = NativeStep(packed, NativeCache(shape, 1), StepLimits(MOST_ROWS, MOST_ROWS), 2)
    yield step
    step.close()


@st.composite
def batches(draw) -> FlatBatch:
    """A sound ragged batch in which some integers may have been replaced by anything."""
    lens = draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    contexts = [draw(st.integers(n, NUM_BLOCKS * BLOCK_SIZE)) for n in lens]
    width = max(-(-context // BLOCK_SIZE) for context in contexts)
    block = st.integers(0, NUM_BLOCKS - 1)
    tables = [draw(block) for _ in range(len(lens) * width)]
    total = sum(lens)
    starts = np.cumsum([0, *lens]).tolist()
    positions = [p for n, context in zip(lens, contexts, strict=True) for p in range(context - n, context)]
    wanted = draw(st.lists(st.integers(0, total - 1), max_size=total))
    ints = [*[1] * total, *positions, *starts, *contexts, *tables, *wanted]
    anything = st.one_of(st.integers(-(2**31), 2**31 - 1), st.integers(-2, 130))
    for place, value in draw(st.lists(st.tuples(st.integers(0, len(ints) - 1), anything), max_size=3)):
        ints[place] = value
    return FlatBatch(array("i", ints), total, len(lens), width, len(wanted))


@needs_native
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches())
def test_any_integers_are_refused_or_computed(step, batch):
    step._logits.fill(CANARY)
    try:
        result = step.forward(batch)
    except ValueError as error:
        assert "refused" in str(error)
        return
    assert (step._logits[batch.num_logit_rows :] == CANARY).all(), "a row that nobody asked for was written"
    assert not (result.logits == CANARY).any()


@needs_native
@pytest.mark.parametrize(
    "sizes", [(0, 1, 1, 0), (1, 0, 1, 0), (MOST_ROWS + 1, 1, 1, 0), (1, 1, 0, 1), (2, 1, 1, 3), (1, 2, 1, 1)]
)
def test_impossible_sizes_are_refused(step, sizes):
    rows, requests, width, wanted = sizes
    ints = array("i", [0] * (2 * rows + 2 * requests + 1 + requests * width + wanted + 8))
    with pytest.raises(ValueError, match="refused"):
        step.forward(FlatBatch(ints, rows, requests, width, wanted))
