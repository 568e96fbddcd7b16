"""Where there is no GPU, Triton's kernels run in its interpreter: that has to be said before they are first imported."""

import pytest
import torch

from octavo.kernels.gpu.interpreter import use_interpreter

if not torch.cuda.is_available():
    use_interpreter()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The kernels' files are not counted by coverage, whose tracing makes Triton's interpreter many times slower."""
    for item in items:
        if item.path.parent.name == "kernels" and not item.path.name.startswith("test_native_"):
            item.add_marker(pytest.mark.no_cover)
