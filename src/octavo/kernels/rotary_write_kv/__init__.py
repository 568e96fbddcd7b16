"""``rotary_write_kv(q, k, v, cos, sin, keys, values, slots)``: rotation and cache in one pass; the code lies in ``rotary``."""
