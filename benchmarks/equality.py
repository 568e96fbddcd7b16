"""Greedy text against transformers in float32, on the real models.

The reference reads the same GGUF file with its own loader and scores our whole output in one forward: at each position its
argmax must be our token. By induction the greedy texts are then equal. A position where the reference's own top-2 margin
is below twice the rounding error (the largest difference between our and its log-probability of the same token) decides
nothing and is counted apart.
"""

from __future__ import annotations

from typing import Any

from octavo import LLM, SamplingParams
from octavo.models.registry import find_model

PROMPTS = (
    "Once upon a time", "The capital of France is", "def fibonacci(n):", "Water boils at", "The three laws of motion are",
    "Dear Sir or Madam,", "In 1969, humans first", "import numpy as np\n", "A recipe for bread:", "To be or not to be,",
    "The mitochondria is", "SELECT name FROM users WHERE", "Der schnelle braune Fuchs", "1, 1, 2, 3, 5, 8,",
    "Q: What is the largest planet?\nA:", "The stock market fell today because", "Le chat est sur", "<html>\n<head>",
    "My favourite book is", "If x + 3 = 7, then x =",
)  # fmt: skip
NUM_TOKENS = 64
MODELS = ("smollm2-135m-instruct", "gemma3-270m")


def run() -> dict[str, Any]:
    return {model: _compare(model) for model in MODELS}


def _compare(model: str) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM

    params = SamplingParams(max_tokens=NUM_TOKENS, temperature=0, ignore_eos=True, logprobs=1)
    with LLM(model, dtype="float32", kv_dtype="float32") as llm:
        outputs = llm.generate(PROMPTS, params)
    path = find_model(model).path
    reference = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    differences: list[float] = []
    disagreements: list[float] = []
    for output in outputs:
        ids = torch.tensor([output.prompt_token_ids + output.token_ids])
        with torch.inference_mode():
            logits = reference(ids).logits[0, len(output.prompt_token_ids) - 1 : -1]
        ours = torch.tensor(output.token_ids)
        scores = torch.log_softmax(logits, -1).gather(1, ours[:, None])[:, 0]
        assert output.logprobs is not None
        differences += (scores - torch.tensor([entry.logprob for entry in output.logprobs])).abs().tolist()
        top = logits.topk(2)
        wrong = top.indices[:, 0] != ours
        disagreements += (top.values[:, 0] - top.values[:, 1])[wrong].tolist()
    rounding = max(differences)
    return {
        "positions": len(differences),
        "equal": len(differences) - len(disagreements),
        "undecided": sum(margin <= 2 * rounding for margin in disagreements),
        "different": sum(margin > 2 * rounding for margin in disagreements),
        "largest_logprob_difference": rounding,
    }


def describe(figures: dict[str, Any]) -> list[str]:
    return [
        f"{model}: {f['equal']} of {f['positions']} greedy tokens equal transformers' float32, {f['undecided']} undecided, "
        f"{f['different']} different; largest |log-probability difference| {f['largest_logprob_difference']:.1e}"
        for model, f in figures.items()
    ]
