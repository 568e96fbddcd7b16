"""The run's options and seed; Triton's interpreter where there is no GPU; what coverage does not trace."""

from __future__ import annotations

import random

import hypothesis
import numpy as np
import pytest
import torch

from octavo.kernels.gpu.interpreter import use_interpreter

# Triton asks once, when its kernels are first imported.
if not torch.cuda.is_available():
    use_interpreter()

# They run the same lines thousands of times: random walks, and statistics over many trials. Others reach all of these lines.
UNTRACED = {
    "scheduler/test_machine.py",
    "scheduler/test_guarantees.py",
    "bench/test_plots.py",
    "bench/test_statistics.py",
}
# Of the kernels' tests, those that look at Python: under a trace, Triton's interpreter and the rest are many times slower.
TRACED_KERNELS = {
    "test_arguments.py",
    "test_attention_checks.py",
    "test_autograd.py",
    "test_library.py",
    "test_native_build.py",
    "test_native_pack.py",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", default="0", help="of all random inputs: a number, or 'random' for a new one")
    parser.addoption("--exhaustive", action="store_true", help="with the tests that repeat others on more inputs")


def pytest_configure(config: pytest.Config) -> None:
    """One seed for all processes of a run: the controlling one draws it, and gives its options to the others."""
    if config.option.seed == "random":
        config.option.seed = str(random.SystemRandom().getrandbits(32))
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = config.option.seed
    hypothesis.settings.register_profile("octavo", database=None, deadline=None)
    hypothesis.settings.register_profile("exhaustive", database=None, deadline=None, max_examples=250)
    hypothesis.settings.load_profile("exhaustive" if config.option.exhaustive else "octavo")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.write_line(f"the same random inputs again: pytest --seed {config.option.seed}")


def is_untraced(item: pytest.Item) -> bool:
    """Whether ``item`` is of the few whose tracing costs more than all others' and counts next to nothing."""
    room, file = item.path.parent.name, item.path.name
    return f"{room}/{file}" in UNTRACED or (room == "kernels" and file not in TRACED_KERNELS)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the exhaustive tests unless they are asked for, and coverage where ``is_untraced`` says so."""
    for item in filter(is_untraced, items):
        item.add_marker(pytest.mark.no_cover)
    if config.option.exhaustive:
        return
    left_out = [item for item in items if item.get_closest_marker("exhaustive")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("exhaustive")]


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    """The run's, for generators that a test makes itself."""
    return int(request.config.option.seed)


@pytest.fixture(autouse=True)
def _untraced_children(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of a test that is not traced are not traced either."""
    if request.node.get_closest_marker("no_cover"):
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture(autouse=True)
def _same_random_inputs(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
