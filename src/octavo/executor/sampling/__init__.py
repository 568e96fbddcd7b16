"""Sampling on torch: logits to tokens, each row with its own request's parameters."""
