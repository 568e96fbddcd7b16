"""``quantize_fp8(x, group)``: rows, or groups within them, as e4m3 numbers with a scale each."""
