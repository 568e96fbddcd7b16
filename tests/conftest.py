"""Where there is no GPU, Triton's kernels run in its interpreter: that has to be said before they are first imported."""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
