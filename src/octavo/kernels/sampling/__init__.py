"""``sampling(logits, ...)``: one token a row, drawn by a counter-based random number; ``native/`` holds the CPU's."""
