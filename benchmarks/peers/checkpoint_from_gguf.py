"""A GGUF file's weights as a checkpoint folder, for engines that read no GGUF: the same numbers, rounded to a dtype.

Runs in an environment with torch, transformers, accelerate, gguf. Usage: checkpoint_from_gguf.py model.gguf folder
[--dtype bfloat16] [--no-eos]. With --no-eos the folder names no end-of-sequence token: answers have the asked length also from
servers that know no ``ignore_eos``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    """Write weights, configs and tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gguf", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--no-eos", action="store_true")
    args = parser.parse_args()
    source = {"pretrained_model_name_or_path": args.gguf.parent, "gguf_file": args.gguf.name}
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    dtype = getattr(torch, args.dtype)
    weights = {name: tensor.to(dtype).contiguous() for name, tensor in model.state_dict().items()}
    config, generation = model.config, model.generation_config
    if config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # they are dequantised
    config.dtype, config.architectures = args.dtype, [type(model).__name__]
    if args.no_eos:
        config.eos_token_id = generation.eos_token_id = None
    args.folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, args.folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(args.folder)
    generation.save_pretrained(args.folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(args.folder)


if __name__ == "__main__":
    main()
