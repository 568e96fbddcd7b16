"""Program: every emulated CUDA back end on inputs whose last byte lies before a page that nobody may touch.

One load too far kills the process; ``tests/kernels/test_cuda.py`` runs it in a process of its own.
"""

from __future__ import annotations

import ctypes
import mmap
import sys

import torch

from octavo.kernels.compare import inputs_of
from octavo.kernels.registry import operation

PAGE = mmap.PAGESIZE
CPU = torch.device("cpu")


def at_the_end(tensor: torch.Tensor, kept: list) -> torch.Tensor:
    """A copy whose last byte is the last of its pages."""
    size = tensor.numel() * tensor.element_size()
    if not size:
        return tensor
    pages = -(-size // PAGE)
    memory = mmap.mmap(-1, (pages + 1) * PAGE)
    kept.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(start + pages * PAGE), ctypes.c_size_t(PAGE), 0) == 0
    raw = torch.frombuffer(memory, dtype=torch.uint8, count=size, offset=pages * PAGE - size)
    copy = raw.view(tensor.dtype).view(tensor.shape)
    return copy.copy_(tensor)


def main(names: list[str]) -> None:
    kept: list = []
    for name in names:
        op = operation(name)
        for backend in op.backends:
            for case in inputs_of(name) if backend.startswith("cuda") else ():
                if case.small:
                    print(name, backend, case.name, flush=True)  # the last line names the culprit
                    arguments = case.make(torch.Generator().manual_seed(0), CPU)
                    placed = {
                        key: at_the_end(one, kept) if isinstance(one, torch.Tensor) else one
                        for key, one in arguments.items()
                    }
                    op.backend(backend)(**placed)


if __name__ == "__main__":
    main(sys.argv[1:])
