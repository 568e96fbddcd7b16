"""``penalties(logits, ...)``: what has occurred is made less likely, in place; the code lies in ``sampling``."""
