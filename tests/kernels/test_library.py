"""Every operation as PyTorch knows it: opcheck, torch.compile without graph breaks, shapes without data, checks first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.optests.generate_tests import DEFAULT_TEST_UTILS
from torch.utils._pytree import tree_leaves, tree_map

import octavo.kernels.ops as K
from octavo.kernels.compare import inputs_of
from octavo.kernels.gpu import ahead
from octavo.kernels.library import _checked, register
from octavo.kernels.operation import Operation
from octavo.kernels.registry import NAMES, operation
from support import verified

CPU = torch.device("cpu")
SEED = 0  # what is looked at here is shapes and types

each_operation = pytest.mark.parametrize("name", NAMES)


def arguments_of(case):
    return dict(case.make(torch.Generator().manual_seed(SEED), CPU))


def small_cases(name):
    return [case for case in inputs_of(name) if case.small]


def first_arguments(name):
    return arguments_of(small_cases(name)[0])


def clones(arguments):
    return tree_map(lambda one: one.clone() if torch.is_tensor(one) else one, arguments)


def tensors(*values):
    return [one for one in tree_leaves(values) if torch.is_tensor(one)]


def same(one, other):
    pairs = zip(tensors(one), tensors(other), strict=True)
    return all(torch.equal(a.double().nan_to_num(), b.double().nan_to_num()) for a, b in pairs)


@each_operation
def test_it_is_the_registered_operation(name):
    assert getattr(K, name) is getattr(K, name)
    assert getattr(torch.ops.octavo, name).default is not None


@each_operation
def test_opcheck(name):
    arguments = first_arguments(name)
    e4m3 = any(one.dtype == torch.float8_e4m3fn for one in tensors(arguments))  # on it torch's schema test multiplies
    utils = [one for one in DEFAULT_TEST_UTILS if not (e4m3 and one == "test_schema")]
    register(name)
    torch.library.opcheck(getattr(torch.ops.octavo, name).default, (), arguments, test_utils=utils)


@each_operation
def test_torch_compile_sees_through_it(name):
    """One graph, the same numbers; what the operation writes to included."""
    torch._dynamo.reset()
    function, arguments = getattr(K, name), first_arguments(name)
    plain, compiled = clones(arguments), clones(arguments)
    expected = function(**plain)
    result = torch.compile(lambda given: function(**given), fullgraph=True, backend="aot_eager")(compiled)
    assert same((expected, plain), (result, compiled))


@each_operation
def test_the_meta_kernel_is_the_real_one_without_data(name):
    for case in small_cases(name):
        arguments = arguments_of(case)
        with FakeTensorMode() as mode:
            given = tree_map(lambda one: mode.from_tensor(one) if torch.is_tensor(one) else one, arguments)
            expected = tensors(getattr(K, name)(**given))
        real = tensors(getattr(K, name)(**arguments))
        for a, b in zip(expected, real, strict=True):
            assert (a.shape, a.dtype, a.stride(), a.device) == (b.shape, b.dtype, b.stride(), b.device), case.name


@each_operation
def test_every_tensor_is_checked_and_named(name):
    arguments = first_arguments(name)
    for key, value in arguments.items():
        if torch.is_tensor(value):
            with pytest.raises(TypeError, match=rf"^{key}: .*complex128"):
                getattr(K, name)(**arguments | {key: value.to(torch.complex128)})


def refuse(x):
    raise ValueError("x: refused")


def test_a_back_end_is_not_even_loaded_when_the_check_refuses():
    op = Operation(
        "op", "(Tensor x) -> Tensor", "", refuse, refuse, refuse, {"torch": "no.such.module:f"}, {"cpu": "torch"}
    )
    with pytest.raises(ValueError, match="refused"):
        _checked(op, "torch")(torch.zeros(1))


def test_importing_the_room_loads_neither_torch_nor_what_the_server_needs():
    """A GPU machine has torch and Triton; msgspec and the like are the server's."""
    code = (
        "import sys\n"
        "sys.modules['msgspec'] = None\n"
        "import octavo.kernels.ops as K\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
        f"[getattr(K, name) for name in {NAMES!r}]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(AttributeError, match=r"'no_such'; its operations: .*rms_norm"):
        _ = K.no_such
    with pytest.raises(ValueError, match=r"unknown operation 'no_such'; known: .*rms_norm"):
        operation("no_such")


@pytest.mark.skipif(sys.platform != "linux", reason="Triton and NVRTC are for Linux")
@pytest.mark.timeout(400)
def test_every_kernel_compiles_within_its_budget(tmp_path: Path, pytestconfig: pytest.Config):
    """For sm_80 and sm_90, without a GPU: registers, shared memory and spills are no more than budget.json says.

    Sources that passed before are compiled in part: one Triton kernel's operation and one in CUDA C++.
    """
    sources = verified.gpu_hash()
    in_full = pytestconfig.option.exhaustive or not verified.is_verified("compile budgets", sources)
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "OCTAVO_CACHE": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-m", "octavo.kernels.gpu.ahead", *(() if in_full else ("rotary", "vector_add"))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if pytestconfig.option.exhaustive:
        verified.record("compile budgets", sources)


def test_a_budget_that_is_exceeded_or_stale_is_named(tmp_path, monkeypatch):
    file = tmp_path / "budget.json"
    file.write_text('{"triton a sm_90": {"registers": 9, "shared_bytes": 0, "spilled_bytes": 0}, "triton b sm_90": {}}')
    monkeypatch.setattr(ahead, "budget_file", lambda name: file)
    used = {"triton a sm_90": ahead.Resources(8, 0, 4), "triton c sm_90": ahead.Resources(1, 228 << 10, 0)}
    found = "\n".join([*ahead.problems("op", used), *ahead.impossible("op", used)])
    assert "b sm_90 is in budget.json but is no longer compiled" in found
    assert "a sm_90 takes 4 spilled_bytes, its budget is 0" in found
    assert "c sm_90 has no budget" in found and "c sm_90 wants 233472 bytes of shared memory" in found
    assert "registers" not in found
