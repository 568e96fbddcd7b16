"""Paged attention in Triton: prefill in tiles, decode in pieces of the context that a second kernel merges.

The kernels are in ``triton_kernels.py``. Only the tiles on the diagonal and at the window's edge are masked; what lies outside
both is never read.

Prefill is bound by the tensor cores. 128 rows by 64 tokens a step at head size 128 and eight warps: 32 KiB of queries, two
buffers each of keys and values (96 KiB in all, 185 registers: one program an SM), wgmma on Hopper. Prediction for an H200:
450 TFLOP/s at head size 128, where pointers and not TMA bring the tiles.

Decode is bound by memory: a program reads one piece of one context for one key head, 32 KiB in flight, four programs an SM.
The pieces (256 to 2,048 tokens) are chosen on the host from the SMs and the longest context, without asking the device; their
results in float32 are under 1 % of the traffic. Prediction: 85 % of copy bandwidth from 64 Ki tokens on.
No atomics: the same arguments on the same GPU give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from octavo.kernels.gpu.ahead import Ahead
from octavo.kernels.gpu.triton import has_native_e4m3, num_sms
from octavo.kernels.gpu.tuning import Config, choose
from octavo.kernels.paged_attention.contract import FP8
from octavo.kernels.paged_attention.triton_kernels import decode, merge, prefill

LONGEST_PIECE = (
    2048  # tokens: even where programs abound, so that one long context does not hold up a batch of short ones
)
SHORTEST_PIECE = 256


@dataclass(frozen=True, slots=True)
class Problem:
    """The arguments of one call, as its launches want them."""

    q: Tensor
    keys: Tensor
    values: Tensor
    query_starts: Tensor
    context_lens: Tensor
    block_tables: Tensor
    scales: tuple[Tensor | None, Tensor | None]
    scale: float
    window: int
    soft_cap: float
    debug: bool

    @property
    def group(self) -> int:
        return self.q.shape[1] // self.keys.shape[2]

    def flags(self) -> dict[str, Any]:
        """What the attending kernels are specialised for, besides their tiles."""
        native = has_native_e4m3(self.q.device)
        return {
            "GROUP": self.group,
            "WINDOWED": self.window > 0,
            "CAPPED": self.soft_cap > 0,
            "HEAD_DIM": self.q.shape[2],
            "BLOCK_D": max(16, triton.next_power_of_2(self.q.shape[2])),
            "BLOCK_SIZE": self.keys.shape[1],
            "FP8_CACHE": 0 if self.keys.dtype != FP8 else 2 if native else 1,
            "DEBUG": self.debug,
        }

    def cache(self) -> tuple[Tensor, Tensor]:
        """8-bit floats as bytes: not every architecture that Triton compiles for knows them."""
        is_fp8 = self.keys.dtype == FP8
        return (self.keys.view(torch.uint8), self.values.view(torch.uint8)) if is_fp8 else (self.keys, self.values)


def default_prefill(group: int, block_d: int, itemsize: int) -> Config:
    """The largest tiles whose operands fit in shared memory with two stages (96 KiB at head size 128)."""
    rows = 128 if block_d * itemsize <= 256 else 64
    tokens = max(16, min(64, 16384 // (block_d * itemsize)))
    stages = 3 if block_d * itemsize <= 256 else 2
    return Config.of(8, stages, BLOCK_M=_rows(group, rows), BLOCK_N=tokens)


def default_decode(group: int, block_d: int, itemsize: int) -> Config:
    """32 KiB of keys and values in flight, and room for four such programs on an SM."""
    tokens = max(16, min(128, 16384 // (block_d * itemsize)))
    return Config.of(4, 3, BLOCK_M=_rows(group, 16), BLOCK_N=tokens)


def _rows(group: int, least: int) -> int:
    return max(least, int(triton.next_power_of_2(group)))


def configs(**arguments: Any) -> Iterator[Config]:
    """Candidates for a batch: of decodes if it begins with one, else of prefills."""
    group = arguments["q"].shape[1] // arguments["keys"].shape[2]
    if arguments["num_decodes"]:
        sizes = [(_rows(group, 16), n, w, s) for n in (32, 64, 128) for w in (4, 8) for s in (2, 3, 4)]
    else:
        sizes = [(_rows(group, m), n, w, s) for m in (64, 128) for n in (32, 64, 128) for w in (4, 8) for s in (2, 3)]
    for rows, tokens, warps, stages in sizes:
        yield Config.of(warps, stages, BLOCK_M=rows, BLOCK_N=tokens)


def paged_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    query_starts: Tensor,
    context_lens: Tensor,
    block_tables: Tensor,
    num_decodes: int,
    max_context_len: int,
    scale: float,
    window: int = 0,
    soft_cap: float = 0.0,
    key_scale: Tensor | None = None,
    value_scale: Tensor | None = None,
    split_tokens: int = 0,
    debug: bool = False,
) -> Tensor:
    """The contract: at most three launches, and nothing is read back from the device."""
    lengths, scales = (query_starts, context_lens, block_tables), (key_scale, value_scale)
    problem = Problem(q, keys, values, *lengths, scales, scale, window, soft_cap, debug)
    out = torch.empty_like(q)
    if num_decodes:
        _launch_decodes(problem, out, num_decodes, max_context_len, split_tokens)
    if num_decodes < context_lens.shape[0]:
        _launch_prefills(problem, out, num_decodes)
    return out


def piece_of(num_programs: int, most: int, sms: int) -> int:
    """Tokens of a context that one program takes: so many that the SMs have four programs each, within the two bounds.

    ``num_programs``: how many there are already, a request and a key head each; ``most``: tokens of the longest context.
    """
    wanted = max(1, 4 * sms // num_programs)
    fair = -(-most // (wanted * 128)) * 128
    return max(SHORTEST_PIECE, min(LONGEST_PIECE, fair))


def _launch_decodes(problem: Problem, out: Tensor, num_decodes: int, max_context_len: int, split_tokens: int) -> None:
    q, flags, (keys, values) = problem.q, problem.flags(), problem.cache()
    heads, head_dim, kv_heads = q.shape[1], q.shape[2], keys.shape[2]
    most = min(max_context_len, problem.window) if problem.window else max_context_len
    piece = split_tokens or piece_of(num_decodes * kv_heads, most, num_sms(q.device))
    pieces = max(1, triton.cdiv(most, piece))
    default = default_decode(problem.group, flags["BLOCK_D"], keys.itemsize)
    config = choose("paged_attention", f"decode {keys.dtype} {flags['BLOCK_D']} {default.tiles[0][1]}", default)
    parts, tops = out, None
    if pieces > 1:
        parts = torch.empty(num_decodes, heads, pieces, head_dim, dtype=torch.float32, device=q.device)
        tops = torch.empty(num_decodes, heads, pieces, dtype=torch.float32, device=q.device)
    decode[(num_decodes, kv_heads, pieces)](
        q, keys, values, parts, tops, problem.context_lens, problem.block_tables, *problem.scales,
        problem.block_tables.shape[1], keys.shape[0], kv_heads, piece, problem.scale, problem.soft_cap, problem.window,
        **flags, **config.launch(),
    )  # fmt: skip
    if tops is not None:
        merge[(num_decodes, heads)](
            parts, tops, out, problem.context_lens, pieces, piece, problem.window, heads,
            WINDOWED=flags["WINDOWED"], HEAD_DIM=head_dim, BLOCK_D=flags["BLOCK_D"], num_warps=2,
        )  # fmt: skip


def _launch_prefills(problem: Problem, out: Tensor, first_request: int) -> None:
    q, flags, (keys, values) = problem.q, problem.flags(), problem.cache()
    num_requests = problem.context_lens.shape[0]
    default = default_prefill(problem.group, flags["BLOCK_D"], max(keys.itemsize, 2))
    config = choose("paged_attention", f"prefill {keys.dtype} {flags['BLOCK_D']} {default.tiles[0][1]}", default)
    rows_a_tile = dict(config.tiles)["BLOCK_M"] // problem.group
    tiles = (q.shape[0] - first_request) // rows_a_tile + num_requests - first_request
    prefill[(tiles, keys.shape[2])](
        q, keys, values, out, problem.query_starts, problem.context_lens, problem.block_tables, *problem.scales,
        num_requests, first_request, problem.block_tables.shape[1], keys.shape[0], keys.shape[2],
        problem.scale, problem.soft_cap, problem.window,
        **flags, REQUESTS=triton.next_power_of_2(num_requests - first_request), **config.launch(),
    )  # fmt: skip


_CACHE = {
    "q": "*bf16", "keys": "*bf16", "values": "*bf16", "context_lens": "*i32", "block_tables": "*i32", "key_scale": None,
    "value_scale": None, "table_stride": "i32", "num_blocks": "i32", "kv_heads": "i32", "scale": "fp32", "soft_cap": "fp32",
    "window": "i32", "GROUP": 4, "WINDOWED": False, "CAPPED": False, "HEAD_DIM": 128, "BLOCK_D": 128, "BLOCK_SIZE": 16,
    "FP8_CACHE": 0, "DEBUG": False,
}  # fmt: skip
_FP8 = {"keys": "*u8", "values": "*u8", "key_scale": "*fp32", "value_scale": "*fp32"}
_PREFILL = {
    **_CACHE, "out": "*bf16", "query_starts": "*i32", "num_requests": "i32", "first_request": "i32", "REQUESTS": 64,
}  # fmt: skip
_DECODE = {**_CACHE, "out": "*fp32", "tops": "*fp32", "piece": "i32"}


def _ahead(name: str, kernel: Any, types: dict[str, Any], config: Config, *architectures: int) -> Ahead:
    return Ahead(
        name, kernel, {**types, **dict(config.tiles)}, config.num_warps, config.num_stages,
        architectures=architectures or (80, 90),
    )  # fmt: skip


AHEAD = (
    _ahead("prefill", prefill, _PREFILL, default_prefill(4, 128, 2)),
    _ahead("prefill 64, window", prefill,
           {**_PREFILL, "HEAD_DIM": 64, "BLOCK_D": 64, "WINDOWED": True}, default_prefill(4, 64, 2)),
    _ahead("prefill 256, window, cap", prefill,
           {**_PREFILL, "GROUP": 2, "HEAD_DIM": 256, "BLOCK_D": 256, "WINDOWED": True, "CAPPED": True},
           default_prefill(2, 256, 2)),
    _ahead("prefill fp8", prefill, {**_PREFILL, **_FP8, "FP8_CACHE": 2}, default_prefill(4, 128, 2), 90),
    _ahead("decode", decode, _DECODE, default_decode(4, 128, 2)),
    _ahead("decode 256, window, cap", decode,
           {**_DECODE, "GROUP": 2, "HEAD_DIM": 256, "BLOCK_D": 256, "WINDOWED": True, "CAPPED": True},
           default_decode(2, 256, 2)),
    _ahead("decode fp8", decode, {**_DECODE, **_FP8, "FP8_CACHE": 2}, default_decode(4, 128, 1), 90),
    _ahead("decode fp8 by bits", decode, {**_DECODE, **_FP8, "FP8_CACHE": 1}, default_decode(4, 128, 1), 80),
    _ahead("decode debug", decode, {**_DECODE, "DEBUG": True}, default_decode(4, 128, 2), 90),
    Ahead("merge", merge,
          {"parts": "*fp32", "tops": "*fp32", "out": "*bf16", "context_lens": "*i32", "num_pieces": "i32", "piece": "i32",
           "window": "i32", "heads": "i32", "WINDOWED": False, "HEAD_DIM": 128, "BLOCK_D": 128}, num_warps=2),
)  # fmt: skip
