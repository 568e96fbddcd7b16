"""``logprobs(logits, tokens, num_top)``: log-probabilities of chosen tokens and the top alternatives; code in ``sampling``."""
