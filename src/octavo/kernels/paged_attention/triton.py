"""Paged attention in Triton: prefill in tiles; split-KV decode, merged by a second kernel.

The kernels are in ``triton_kernels.py``. Only the tiles on the diagonal and at the window's edge are masked; what lies outside
both is never read.

Prefill is bound by the tensor cores. 128 rows by 64 tokens a step at head size 128 and eight warps: 32 KiB of queries, two
buffers each of keys and values (96 KiB in all, 185 registers: one program an SM), wgmma on Hopper. Prediction for an H200:
450 TFLOP/s at head size 128, where pointers and not TMA bring the tiles.

Decode is bound by memory: a program reads one split of one context for one key head, 32 KiB in flight, four programs an SM.
The splits (256 to 2,048 tokens) are chosen on the host from the SMs and the longest context, without asking the device; their
results in float32 are under 1 % of the traffic. Prediction: 85 % of copy bandwidth from 64 Ki tokens on.
No atomics: the same arguments on the same GPU give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
from torch import Tensor

from octavo.kernels.gpu.ahead import Ahead
from octavo.kernels.gpu.triton import has_native_e4m3, num_sms
from octavo.kernels.gpu.tuning import Config, choose
from octavo.kernels.operation import taking
from octavo.kernels.paged_attention.checks import FP8, PagedAttention
from octavo.kernels.paged_attention.triton_kernels import decode, merge, prefill

# tokens: the longest even where programs abound, so that one long context does not hold up a batch of short ones
LONGEST_SPLIT = 2048
SHORTEST_SPLIT = 256


def flags(call: PagedAttention) -> dict[str, Any]:
    """What the attending kernels are specialised for, besides their tiles."""
    native = has_native_e4m3(call.q.device)
    return {
        "GROUP": call.group,
        "WINDOWED": call.window > 0,
        "CAPPED": call.soft_cap > 0,
        "HEAD_DIM": call.q.shape[2],
        "BLOCK_D": max(16, triton.next_power_of_2(call.q.shape[2])),
        "BLOCK_SIZE": call.keys.shape[1],
        "FP8_CACHE": 0 if call.keys.dtype != FP8 else 2 if native else 1,
        "DEBUG": call.debug,
    }


def cache_of(call: PagedAttention) -> tuple[Tensor, Tensor]:
    """8-bit floats as bytes: not every architecture that Triton compiles for knows them."""
    is_fp8 = call.keys.dtype == FP8
    return (call.keys.view(torch.uint8), call.values.view(torch.uint8)) if is_fp8 else (call.keys, call.values)


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


@taking(PagedAttention)
def paged_attention(call: PagedAttention) -> Tensor:
    """At most three launches, and nothing is read back from the device."""
    out = torch.empty_like(call.q)
    if call.num_decodes:
        _launch_decodes(call, out)
    if call.num_decodes < call.context_lens.shape[0]:
        _launch_prefills(call, out)
    return out


def split_size_of(num_programs: int, most: int, sms: int) -> int:
    """Tokens of a context that one program takes: so many that the SMs have four programs each, within the two bounds.

    ``num_programs``: how many there are already, a request and a key head each; ``most``: tokens of the longest context.
    """
    wanted = max(1, 4 * sms // num_programs)
    fair = -(-most // (wanted * 128)) * 128
    return max(SHORTEST_SPLIT, min(LONGEST_SPLIT, fair))


def _launch_decodes(call: PagedAttention, out: Tensor) -> None:
    q, num_decodes, kinds, (keys, values) = call.q, call.num_decodes, flags(call), cache_of(call)
    heads, head_dim, kv_heads = q.shape[1], q.shape[2], keys.shape[2]
    most = min(call.max_context_len, call.window) if call.window else call.max_context_len
    split_size = call.split_tokens or split_size_of(num_decodes * kv_heads, most, num_sms(q.device))
    splits = max(1, triton.cdiv(most, split_size))
    default = default_decode(call.group, kinds["BLOCK_D"], keys.itemsize)
    config = choose("paged_attention", f"decode {keys.dtype} {kinds['BLOCK_D']} {default.tiles[0][1]}", default)
    parts, tops = out, None
    if splits > 1:
        parts = torch.empty(num_decodes, heads, splits, head_dim, dtype=torch.float32, device=q.device)
        tops = torch.empty(num_decodes, heads, splits, dtype=torch.float32, device=q.device)
    decode[(num_decodes, kv_heads, splits)](
        q, keys, values, parts, tops, call.context_lens, call.block_tables, call.key_scale, call.value_scale,
        call.block_tables.shape[1], keys.shape[0], kv_heads, split_size, call.scale, call.soft_cap, call.window,
        **kinds, **config.launch(),
    )  # fmt: skip
    if tops is not None:
        merge[(num_decodes, heads)](
            parts, tops, out, call.context_lens, splits, split_size, call.window, heads,
            WINDOWED=kinds["WINDOWED"], HEAD_DIM=head_dim, BLOCK_D=kinds["BLOCK_D"], num_warps=2,
        )  # fmt: skip


def _launch_prefills(call: PagedAttention, out: Tensor) -> None:
    """Of the requests behind the decodes."""
    q, first_request, kinds, (keys, values) = call.q, call.num_decodes, flags(call), cache_of(call)
    num_requests = call.context_lens.shape[0]
    default = default_prefill(call.group, kinds["BLOCK_D"], max(keys.itemsize, 2))
    config = choose("paged_attention", f"prefill {keys.dtype} {kinds['BLOCK_D']} {default.tiles[0][1]}", default)
    rows_a_tile = dict(config.tiles)["BLOCK_M"] // call.group
    tiles = (q.shape[0] - first_request) // rows_a_tile + num_requests - first_request
    prefill[(tiles, keys.shape[2])](
        q, keys, values, out, call.query_starts, call.context_lens, call.block_tables, call.key_scale, call.value_scale,
        num_requests, first_request, call.block_tables.shape[1], keys.shape[0], keys.shape[2],
        call.scale, call.soft_cap, call.window,
        **kinds, REQUESTS=triton.next_power_of_2(num_requests - first_request), **config.launch(),
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
_DECODE = {**_CACHE, "out": "*fp32", "tops": "*fp32", "split_size": "i32"}


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
          {"parts": "*fp32", "tops": "*fp32", "out": "*bf16", "context_lens": "*i32", "num_splits": "i32", "split_size": "i32",
           "window": "i32", "heads": "i32", "WINDOWED": False, "HEAD_DIM": 128, "BLOCK_D": 128}, num_warps=2),
)  # fmt: skip
