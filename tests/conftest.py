"""Where there is no GPU, Triton's kernels run in its interpreter: that has to be said before they are first imported."""

import torch

from octavo.kernels.gpu.interpreter import use_interpreter

if not torch.cuda.is_available():
    use_interpreter()
