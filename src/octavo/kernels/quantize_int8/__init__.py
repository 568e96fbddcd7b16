"""``quantize_int8(x, group)``: rows, or groups within them, as integers in [-127, 127] with a scale each."""
