"""``penalties(logits, ...)``: repetition, presence and frequency penalties, in place; code in ``sampling``."""
