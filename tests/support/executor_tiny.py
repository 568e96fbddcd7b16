"""A tiny random Llama on disk, in Hugging Face's layout, and a loop that runs requests through scheduler and executor."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file

from octavo.executor.torch_executor import TorchExecutor
from octavo.kvcache.cache import KVCache
from octavo.scheduler.policies import make_policy
from octavo.scheduler.scheduler import Scheduler
from octavo.types import Plan, Request, Step

VOCAB_SIZE, HIDDEN, MLP, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 211, 32, 48, 2, 4, 2, 8


def write_tiny_llama(folder: Path) -> None:
    """Weights are spread so that the logits have a range of about 10: neither flat nor decided."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCAB_SIZE,
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    }
    shapes = {"model.embed_tokens": (VOCAB_SIZE, HIDDEN), "lm_head": (VOCAB_SIZE, HIDDEN), "model.norm": (HIDDEN,)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        shapes |= {
            f"{prefix}.self_attn.q_proj": (HEADS * HEAD_DIM, HIDDEN),
            f"{prefix}.self_attn.k_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
            f"{prefix}.self_attn.v_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
            f"{prefix}.self_attn.o_proj": (HIDDEN, HEADS * HEAD_DIM),
            f"{prefix}.mlp.gate_proj": (MLP, HIDDEN),
            f"{prefix}.mlp.up_proj": (MLP, HIDDEN),
            f"{prefix}.mlp.down_proj": (HIDDEN, MLP),
            f"{prefix}.input_layernorm": (HIDDEN,),
            f"{prefix}.post_attention_layernorm": (HIDDEN,),
        }
    generator = torch.Generator().manual_seed(1)
    weights = {
        f"{name}.weight": torch.ones(shape)
        if len(shape) == 1
        else torch.randn(shape, generator=generator) * 1.7 * shape[1] ** -0.5
        for name, shape in shapes.items()
    }
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


@dataclass
class Run:
    """What came out, and whether the circumstances that the test wanted have arisen."""

    outputs: dict[str, list[int]] = field(default_factory=dict)
    num_preempted: int = 0
    num_cached_tokens: int = 0
    max_batch: int = 0
    num_chunks: int = 0  # requests planned without reaching their last token


def run(
    executor: TorchExecutor,
    cache: tuple[int, int],
    requests: Sequence[Request],
    *,
    budget: int = 512,
    running: int = 16,
    in_flight: int = 1,
) -> Run:
    """Run ``requests`` to their end with ``cache`` = (num_blocks, block_size), prefix cache on; check after every step."""
    scheduler = Scheduler(
        make_policy("fcfs"),
        KVCache(*cache),
        max_num_running=running,
        max_step_tokens=budget,
        draft_limits=executor.draft_limits,
    )
    for request in requests:
        scheduler.add(request, 0.0)
    result = Run()
    launched: deque[tuple[Plan, Step]] = deque()
    while scheduler.has_work or launched:
        plan = scheduler.plan(0.0)
        if plan.requests:
            launched.append((plan, executor.launch(plan)))
        if len(launched) < in_flight and plan.requests:
            continue
        done, step = launched.popleft()
        events = scheduler.commit(done, step.result(), 0.0)
        scheduler.check()
        result.num_preempted += len(plan.preempted)
        result.max_batch = max(result.max_batch, len(plan.requests))
        result.num_chunks += sum(not planned.samples for planned in plan.requests)
        for event in events:
            assert event.error is None, event.error
            result.outputs.setdefault(event.request_id, []).extend(event.token_ids)
    result.num_cached_tokens = sum(request.num_cached_tokens for request in requests)
    return result
