"""``logprobs(logits, tokens, num_top)``: how likely the chosen tokens and their rivals were; the code lies in ``sampling``."""
