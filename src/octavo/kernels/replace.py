"""Replacement of a transformers Llama's norms, attention and MLP by our operations: ``replace_in(model)``, ``restore(model)``.

The model stays what it is to its users: the same classes, parameters and caches, ``generate`` included. Only ``forward`` of its
norms, attentions, MLPs and layers is replaced, instance by instance, so transformers itself is not imported here.
Gradients are the original's business: while a gradient is wanted through a module, its own ``forward`` runs.

Attention sees a contiguous cache ``[B, heads, S, D]`` as a paged one: each (request, key head) is a request of one key head
whose only block has S tokens. No key and no value is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import octavo.kernels.ops as K
from octavo.errors import UnsupportedModelError

PARTS = ("attention", "norms", "mlp")
ATTENTIONS = ("sdpa", "eager")  # transformers' implementations whose masks we know
_ORIGINAL = "_octavo_original_forward"
_FUSED = "_octavo_fused"


def replace_in(model: nn.Module, parts: Sequence[str] = PARTS) -> nn.Module:
    """Replace the operations of a transformers ``LlamaForCausalLM`` (or its ``LlamaModel``) in place; returns the model.

    ``parts``: ``attention`` (projections joined, rotary, softmax-attention), ``norms`` (RMSNorm, with the residual added in
    the same pass), ``mlp`` (gate and up joined, SiLU). A padding mask is honoured. The joined weights take the place of the
    separate ones, which become views of them: no memory is added, the state dict stays.
    Raises ``UnsupportedModelError`` before anything is changed: another architecture, activation, attention or layer type.
    """
    unknown = set(parts) - set(PARTS)
    if unknown:
        raise ValueError(f"parts: unknown {sorted(unknown)}; known: {', '.join(PARTS)}")
    _expect_llama(model)
    for name in ("rms_norm", "add_rms_norm", "paged_attention", "softmax", "silu_mul", "rotary"):
        getattr(K, name)  # registered now: torch.compile is not to see it
    restore(model)
    for module in list(model.modules()):
        kind = type(module).__name__
        if kind == "LlamaRMSNorm" and "norms" in parts:
            _replace(module, _norm)
        elif kind == "LlamaDecoderLayer" and "norms" in parts:
            _replace(module, _layer)
        elif kind == "LlamaMLP" and "mlp" in parts:
            _fuse(module, ("gate_proj", "up_proj"))
            _replace(module, _mlp)
        elif kind == "LlamaAttention" and "attention" in parts:
            _fuse(module, ("q_proj", "k_proj", "v_proj"))
            _replace(module, _attention)
    return model


def restore(model: nn.Module) -> nn.Module:
    """The model's own operations again; what was never replaced stays as it is. Weights get memory of their own."""
    for module in model.modules():
        if _ORIGINAL in module.__dict__:
            del module.__dict__["forward"], module.__dict__[_ORIGINAL]
        for linear in module.__dict__.pop(_FUSED, (None, None, ()))[2]:
            for parameter in linear.parameters(recurse=False):
                parameter.data = parameter.data.clone()
    return model


def _expect_llama(model: nn.Module) -> None:
    config = getattr(model, "config", None)
    kind = getattr(config, "model_type", type(model).__name__)
    if kind != "llama" or config is None:
        raise UnsupportedModelError(f"replace_in: the model is of type {kind!r}; only transformers' 'llama' is known")
    if config.hidden_act != "silu":
        raise UnsupportedModelError(f"replace_in: hidden_act = {config.hidden_act!r} came, 'silu' was expected")
    if config._attn_implementation not in ATTENTIONS:
        raise UnsupportedModelError(
            f"replace_in: attention {config._attn_implementation!r} came, one of {', '.join(ATTENTIONS)} was expected; "
            "load the model with attn_implementation='sdpa'"
        )
    for name, module in model.named_modules():
        if name.endswith("_proj") and type(module) is not nn.Linear:
            raise UnsupportedModelError(
                f"replace_in: {name} is a {type(module).__name__}, a plain Linear was expected (no adapters, not quantised)"
            )


def _replace(module: nn.Module, forward: Callable[..., Any]) -> None:
    """Attributes go into the dictionary: an ``nn.Module`` would take them for submodules."""
    module.__dict__[_ORIGINAL] = module.forward
    module.__dict__["forward"] = partial(forward, module)


def _fuse(module: nn.Module, names: Sequence[str]) -> None:
    """One weight for several projections of the same input: one product instead of three, each bit the same."""
    linears: list[Any] = [getattr(module, name) for name in names]
    with torch.no_grad():
        weight = torch.cat([one.weight for one in linears])
        bias = torch.cat([one.bias for one in linears]) if linears[0].bias is not None else None
        start = 0
        for one in linears:
            end = start + one.out_features
            one.weight.data = weight[start:end]
            if bias is not None:
                one.bias.data = bias[start:end]
            start = end
    module.__dict__[_FUSED] = (weight, bias, tuple(linears))


def _wants_gradient(x: Tensor) -> bool:
    return torch.is_grad_enabled() and x.requires_grad


def _norm(self: Any, hidden_states: Tensor) -> Tensor:
    normed: Tensor = K.rms_norm(hidden_states.contiguous(), self.weight, self.variance_epsilon)
    return normed


def _layer(self: Any, hidden_states: Tensor, **kwargs: Any) -> Tensor:
    """The residual is added in the pass that normalises the sum."""
    attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
    norm = self.post_attention_layernorm
    normed, residual = K.add_rms_norm(
        attended.contiguous(), hidden_states.contiguous(), norm.weight, norm.variance_epsilon
    )
    done: Tensor = residual + self.mlp(normed)
    return done


def _mlp(self: Any, x: Tensor) -> Tensor:
    if _wants_gradient(x):
        original: Tensor = self.__dict__[_ORIGINAL](x)
        return original
    weight, bias, _ = self.__dict__[_FUSED]
    done: Tensor = self.down_proj(K.silu_mul(nn.functional.linear(x, weight, bias)))
    return done


def _attention(
    self: Any,
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    if _wants_gradient(hidden_states):
        rest = kwargs | {"attention_mask": attention_mask, "past_key_values": past_key_values}
        original: tuple[Tensor, None] = self.__dict__[_ORIGINAL](
            hidden_states, position_embeddings=position_embeddings, **rest
        )
        return original
    weight, bias, _ = self.__dict__[_FUSED]
    batch, length = hidden_states.shape[:2]
    rows = nn.functional.linear(hidden_states, weight, bias).view(batch, length, -1, self.head_dim)
    num_kv_heads = self.k_proj.out_features // self.head_dim
    rotated, v = _rotary(rows[:, :, :-num_kv_heads], *position_embeddings), rows[:, :, -num_kv_heads:].transpose(1, 2)
    q, k = rotated[:, :, :-num_kv_heads], rotated[:, :, -num_kv_heads:].transpose(1, 2)
    if past_key_values is not None:
        k, v = past_key_values.update(k, v, self.layer_idx)
    if attention_mask is None:
        out = _causal(q, k.contiguous(), v.contiguous(), self.scaling)
    else:
        out = _masked(q, k, v, attention_mask, self.scaling)
    return self.o_proj(out.reshape(batch, length, -1)), None


def _causal(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """``q``: ``[B, T, H, D]``; ``k``, ``v``: ``[B, G, S, D]`` -> ``[B, T, H, D]``.

    What no mask means in transformers: one row sees all S positions; of several, the first sees the first (S may be a cache
    that is longer than what it holds).
    """
    batch, length, heads, size = q.shape
    kv_heads, context = k.shape[1], k.shape[2]
    requests = batch * kv_heads
    grouped = q.reshape(batch, length, kv_heads, -1, size).transpose(1, 2).reshape(requests * length, -1, size)
    seen, decodes = (context, requests) if length == 1 else (length, 0)
    ragged = _ragged.__wrapped__ if torch.compiler.is_compiling() else _ragged  # a graph has no cache to look into
    starts, lens, tables = ragged(requests, length, seen, q.device)
    blocks = (requests, context, 1, size)
    out = K.paged_attention(grouped, k.view(blocks), v.view(blocks), starts, lens, tables, decodes, seen, scale)
    back: Tensor = out.view(batch, kv_heads, length, -1, size).transpose(1, 2).reshape(batch, length, heads, size)
    return back


class _Ragged(NamedTuple):
    """Where each request's queries and keys are, as ``paged_attention`` takes it: a block of the cache is a request."""

    query_starts: Tensor
    context_lens: Tensor
    block_tables: Tensor


@lru_cache(maxsize=4)
def _ragged(requests: int, length: int, context: int, device: torch.device) -> _Ragged:
    """The same in all layers of a step."""
    count = torch.arange(requests + 1, dtype=torch.int32, device=device)
    lens = torch.full((requests,), context, dtype=torch.int32, device=device)
    return _Ragged(count * length, lens, count[:-1].unsqueeze(1))


def _masked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    """``mask``: ``[B or 1, 1, T, S]``, true where a position is seen, or what is added to the scores."""
    batch, length, heads, size = q.shape
    kv_heads, context = k.shape[1], k.shape[2]
    queries = q.reshape(batch, length, kv_heads, -1, size).permute(0, 2, 3, 1, 4)  # [B, G, H / G, T, D]
    scores = torch.matmul(queries.reshape(batch, kv_heads, -1, size) * scale, k.transpose(2, 3))
    scores = scores.view(batch, kv_heads, -1, length, context)
    mask = mask[..., :context].unsqueeze(1)
    lowest = torch.finfo(scores.dtype).min  # not infinity: a row of padding sees nothing, and has to stay finite
    scores = scores.masked_fill(~mask, lowest) if mask.dtype == torch.bool else scores + mask
    weights = K.softmax(scores.contiguous())
    out = torch.matmul(weights.view(batch, kv_heads, -1, context), v)
    back: Tensor = out.view(batch, kv_heads, -1, length, size).permute(0, 3, 1, 2, 4)
    return back.reshape(batch, length, heads, size)


def _rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """``x``: ``[B, T, H, D]``; ``cos``, ``sin``: ``[B or 1, T, D]``, both halves alike."""
    batch, length, half = x.shape[0], x.shape[1], x.shape[3] // 2
    angles = [one[..., :half].float().expand(batch, -1, -1).reshape(-1, half).contiguous() for one in (cos, sin)]
    rotated: Tensor = K.rotary(x.flatten(0, 1), *angles)
    return rotated.view(batch, length, -1, 2 * half)
