"""Kernels: one folder per operation, the namespace that calls them (``ops``), and what runs, checks and times their back ends.

Importing this package loads no torch; ``octavo.kernels.ops`` loads an operation when its name is first asked for.
"""
