"""Argument checks and meta kernel of ``sampling``: a token per row, a function of logits, parameters, seed and position alone.

With ``w_i = exp((x_i - max x) / temperature)``, tokens are cut to the ``top_k`` largest, then to ``w >= min_p``, then to the
fewest of the largest that hold the share ``top_p`` of what is left; ties with the last one kept are kept. The token is the
first, in the order of ids, up to which the kept weights sum to more than the share ``uniform(seed, position)`` of their
whole: the number and the definition of the executors on the CPU, so a seeded text is the same up to the logits' rounding.

The number: the finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) applied to the seed, then to the position; 53 bits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from octavo.kernels.arguments import expect_same, expect_shape, expect_tensor, expect_value
from octavo.kernels.operation import taking

GREEDY_BELOW = 1e-5  # a temperature this low differs from greedy by rounding noise alone
MAX_TOP = 256  # log-probabilities of the most likely tokens are found one after the other


class Sampling(NamedTuple):
    """The arguments of one call.

    ``logits``: ``[R, V]``; the others ``[R]``: ``seeds``, ``positions`` int64, ``temperature`` float32 (below 1e-5: the
    largest logit), ``top_k`` int32 (0 or less, or V or more: off), ``top_p`` (1: off) and ``min_p`` (0: off) float64.
    """

    logits: Tensor
    seeds: Tensor
    positions: Tensor
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor


class Penalties(NamedTuple):
    """The arguments of one call.

    ``logits``: ``[R, V]``, changed in place. Row ``r`` is penalised for ``tokens[starts[r]:starts[r + 1]]`` (int32, each
    at most once a row; one outside of the vocabulary is passed over), whose numbers in the output so far are ``counts``
    (float32; 0: in the prompt only). ``repetition`` divides positive logits and multiplies the others (Keskar et al., 2019),
    then ``frequency * count + presence * (count > 0)`` is taken off; all three float32 ``[R]``.
    """

    logits: Tensor
    starts: Tensor
    tokens: Tensor
    counts: Tensor
    repetition: Tensor
    presence: Tensor
    frequency: Tensor


@taking(Sampling)
def check(call: Sampling) -> None:
    """Shapes and dtypes; the values are the caller's."""
    check_logits(call.logits)
    for name, dtype in (
        ("seeds", torch.int64),
        ("positions", torch.int64),
        ("temperature", torch.float32),
        ("top_k", torch.int32),
        ("top_p", torch.float64),
        ("min_p", torch.float64),
    ):
        expect_per_row(name, getattr(call, name), dtype, call.logits)


@taking(Sampling)
def meta(call: Sampling) -> Tensor:
    """int64 ``[R]``; -1 for a row with NaN or +inf, or with nothing above -inf."""
    return call.seeds.new_empty(call.seeds.shape)


@taking(Penalties)
def check_penalties(call: Penalties) -> None:
    """Shapes and dtypes; the values are the caller's."""
    check_logits(call.logits)
    for name, dtype in (("starts", torch.int32), ("tokens", torch.int32), ("counts", torch.float32)):
        expect_tensor(name, getattr(call, name), (dtype,))
        expect_same(name, getattr(call, name), "logits", call.logits, dtype=False)
    expect_shape("starts", call.starts, (call.logits.shape[0] + 1,), "one more than rows of logits")
    expect_shape("tokens", call.tokens, (None,))
    expect_shape("counts", call.counts, call.tokens.shape, "the shape of tokens")
    for name in ("repetition", "presence", "frequency"):
        expect_per_row(name, getattr(call, name), torch.float32, call.logits)


@taking(Penalties)
def meta_penalties(call: Penalties) -> None:
    """Nothing is returned."""


def check_logprobs(logits: Tensor, tokens: Tensor, num_top: int = 0) -> None:
    """``logits``: ``[R, V]`` as the model gave them; ``tokens``: int64 ``[R]``, chosen; ``num_top``: how many alternatives."""
    check_logits(logits)
    expect_per_row("tokens", tokens, torch.int64, logits)
    most = min(MAX_TOP, logits.shape[1])
    expect_value("num_top", 0 <= num_top <= most, num_top, f"0 to {most}")


def meta_logprobs(logits: Tensor, tokens: Tensor, num_top: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """float32 ``[R]`` of the chosen (-inf for a token outside of the vocabulary); of the most likely, equals by lowest id: int64
    ids and float32 values ``[R, num_top]``."""
    ids = tokens.new_empty(logits.shape[0], num_top)
    return (
        logits.new_empty(logits.shape[0], dtype=torch.float32),
        ids,
        logits.new_empty(ids.shape, dtype=torch.float32),
    )


def check_logits(logits: Tensor) -> None:
    """``[R, V]``, V > 0."""
    expect_tensor("logits", logits)
    expect_shape("logits", logits, (None, None), "[R, V]")
    expect_value("logits", logits.shape[1] > 0, f"shape {list(logits.shape)}", "a vocabulary above 0")


def expect_per_row(name: str, values: Tensor, dtype: torch.dtype, logits: Tensor) -> None:
    """``[R]`` of ``dtype``, on the device of ``logits``."""
    expect_tensor(name, values, (dtype,))
    expect_shape(name, values, (logits.shape[0],), "one for each row of logits")
    expect_same(name, values, "logits", logits, dtype=False)
