"""``rotary(x, cos, sin)``: rotary position embedding (Su et al., 2021) in the half-split layout."""
