"""Discrete-event simulation of serving: the real engine loop, scheduler and KV cache on a virtual clock."""
