"""Native row-wise operations (norm, rotary, activations, argmax) against float64, any length, no access past a row."""

from __future__ import annotations

import numpy as np
import pytest

from octavo.kernels.native.operations import Operations, operations
from support.native_library import isas, needs_native

pytestmark = needs_native

LENGTHS = (1, 2, 7, 8, 9, 31, 32, 33, 64, 100, 576, 1536, 2049)
GUARD = 8  # floats behind every output that must stay as they are


@pytest.fixture(params=isas())
def ops(request: pytest.FixtureRequest) -> Operations:
    return operations(request.param)


def guarded(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.full(GUARD, 12345, np.float32)]).astype(np.float32)


def at(x: np.ndarray) -> int:
    return x.ctypes.data


def normal(seed: int, *shape: int, scale: float = 1) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def check(got: np.ndarray, expected: np.ndarray, rtol: float = 1e-6, atol: float = 1e-7) -> None:
    assert (got[-GUARD:] == 12345).all()
    np.testing.assert_allclose(got[:-GUARD], expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("n", LENGTHS)
def test_rms_norm(ops: Operations, n: int) -> None:
    x, weight = normal(n, n, scale=30), normal(n + 1, n)
    expected = x.astype(np.float64) / np.sqrt((x.astype(np.float64) ** 2).mean() + 1e-5) * weight
    out = guarded(np.full(n, np.nan))
    ops.rms_norm(at(x), at(weight), n, 1e-5, at(out))
    check(out, expected)
    in_place = guarded(x)
    ops.rms_norm(at(in_place), at(weight), n, 1e-5, at(in_place))
    assert (in_place == out).all()


@pytest.mark.parametrize("head_dim", (2, 12, 16, 24, 64, 80, 256))
def test_rotary(ops: Operations, head_dim: int) -> None:
    half = head_dim // 2
    x, angle = normal(head_dim, head_dim), normal(1, half, scale=9)
    cos, sin = np.cos(angle), np.sin(angle)
    a, b = x[:half].astype(np.float64), x[half:].astype(np.float64)
    out = guarded(x)
    ops.rotary(at(out), at(cos), at(sin), head_dim)
    check(out, np.concatenate([a * cos - b * sin, b * cos + a * sin]), atol=1e-6)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("spread", (1.0, 30.0))
def test_gated_activations(ops: Operations, n: int, spread: float) -> None:
    gate, up = normal(n, n, scale=spread), normal(n + 1, n)
    wide = gate.astype(np.float64)
    with np.errstate(over="ignore"):
        silu = wide / (1 + np.exp(-wide))
    gelu = wide * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))
    for function, activated in ((ops.silu_mul, silu), (ops.gelu_mul, gelu)):
        out = guarded(np.full(n, np.nan))
        function(at(gate), at(up), n, at(out))
        check(out, activated * up, rtol=5e-6)
        in_place = guarded(gate)
        function(at(in_place), at(up), n, at(in_place))
        assert (in_place == out).all()


def test_gated_activations_far_out(ops: Operations) -> None:
    """No NaN where e^-x overflows, and a NaN stays one."""
    gate, up = np.array([-1e4, -200, -88.8, 88.8, 1e4, np.nan], np.float32), np.ones(6, np.float32)
    for function in (ops.silu_mul, ops.gelu_mul):
        out = np.empty(6, np.float32)
        function(at(gate), at(up), 6, at(out))
        np.testing.assert_allclose(out, [0, 0, 0, 88.8, 1e4, np.nan], atol=1e-30, rtol=1e-6)


@pytest.mark.parametrize("n", LENGTHS)
def test_scale_and_add(ops: Operations, n: int) -> None:
    x, y = normal(n, n), normal(n + 1, n)
    scaled, added = guarded(x), guarded(x)
    ops.scale(at(scaled), 0.3, n)
    ops.add(at(added), at(y), n)
    check(scaled, x * np.float32(0.3), rtol=0, atol=0)
    check(added, x + y, rtol=0, atol=0)


@pytest.mark.parametrize("n", LENGTHS)
def test_argmax_is_the_first_of_equals(ops: Operations, n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(20):
        x = rng.integers(-3, 4, n).astype(np.float32)
        x[rng.random(n) < 0.2] = -np.inf
        expected = int(np.argmax(x))
        x[(rng.random(n) < 0.2) & (np.arange(n) != expected)] = np.nan
        assert ops.argmax(at(x), n) == expected


def test_argmax_of_nothing_finite(ops: Operations) -> None:
    for n in (1, 8, 9, 20):
        x = np.full(n, np.nan, np.float32)
        assert ops.argmax(at(x), n) == 0
        x[n - 1] = -np.inf
        assert ops.argmax(at(x), n) == n - 1
