"""The kernel laboratory: timing, benchmarks, tuning, torch.compile study, unattended GPU runs; nothing here serves requests."""
