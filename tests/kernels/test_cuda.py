"""CUDA C++ without a GPU: NVRTC and its cache, and an emulator that has to see the mistakes it is there for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from octavo.errors import KernelError
from octavo.kernels.fused_gemm.concurrency import grouped, serial
from octavo.kernels.gpu import nvrtc
from octavo.kernels.gpu.driver import load
from octavo.kernels.gpu.module import Kernel
from octavo.kernels.gpu.nvrtc import CudaSource, cubin

CPU = torch.device("cpu")
HEAD = '#include "octavo.cuh"\nextern "C" __global__ '
REVERSE = """
#include "octavo.cuh"
extern "C" __global__ void reverse(const float* in, float* out, int count) {
  __shared__ float tile[THREADS];
  int at = blockIdx.x * THREADS + threadIdx.x;
  tile[threadIdx.x] = at < count ? in[at] : 0.0f;
  BARRIER
  if (at < count) out[at] = tile[THREADS - 1 - threadIdx.x];
}
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A source of this text, and a cache of its own."""
    monkeypatch.setenv("OCTAVO_CACHE", str(tmp_path / "cache"))

    def made(text: str, entry: str, parameters: str, **more) -> CudaSource:
        path = tmp_path / f"{entry}.cu"
        path.write_text(text)
        return CudaSource(path, entry, parameters, **{"threads": 64, **more})

    return made


def test_a_cubin_is_compiled_once_and_anew_when_its_source_changes(write, tmp_path, monkeypatch):
    source = write(REVERSE.replace("BARRIER", "__syncthreads();"), "reverse", "PPi")
    first = cubin(source, 90)
    assert first.startswith(b"\x7fELF")
    with monkeypatch.context() as patched:
        patched.setattr(nvrtc.Nvrtc, "compile", None)  # would fail if it were called
        assert cubin(source, 90) == first
    source.path.write_text(source.path.read_text().replace("0.0f", "1.0f"))
    assert cubin(source, 90) != first
    assert len(list((tmp_path / "cache" / "kernels" / "cubin").glob("*.cubin"))) == 2


def test_a_damaged_cubin_is_made_anew(write, tmp_path):
    source = write(REVERSE.replace("BARRIER", "__syncthreads();"), "reverse", "PPi")
    first = cubin(source, 80)
    (file,) = (tmp_path / "cache").rglob("*.cubin")
    file.write_bytes(b"")
    assert cubin(source, 80) == first == file.read_bytes()


def test_a_cache_that_cannot_be_written_costs_a_compilation_only(write, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert cubin(write(REVERSE.replace("BARRIER", ""), "reverse", "PPi"), 90).startswith(b"\x7fELF")


def test_a_mistake_is_named_with_its_line(write):
    source = write(
        '#include "octavo.cuh"\n\nextern "C" __global__ void broken() { nothing_of_the_kind(); }', "broken", ""
    )
    with pytest.raises(KernelError, match=r"broken\.cu\(3\).*nothing_of_the_kind"):
        cubin(source, 90)
    with pytest.raises(KernelError, match=r"broken\.cu:3.*nothing_of_the_kind"):
        Kernel(source).launch(CPU, 1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_without_a_gpu_a_launch_says_so():
    with pytest.raises(KernelError, match="need an NVIDIA GPU"):
        load(b"", "nothing", 0, 0)


def test_the_emulator_runs_a_kernel(write):
    source = write(REVERSE.replace("BARRIER", "__syncthreads();"), "reverse", "PPi")
    values = torch.randn(192)
    out = torch.full_like(values, float("nan"))
    Kernel(source).launch(CPU, 3, values, out, 192)
    assert torch.equal(out, values.view(3, 64).flip(1).flatten())


def test_the_emulator_sees_a_missing_barrier(write):
    values = torch.randn(192)
    out = torch.empty_like(values)
    Kernel(write(REVERSE.replace("BARRIER", ""), "reverse", "PPi")).launch(CPU, 3, values, out, 192)
    assert out.isnan().any()


def test_the_emulator_sees_threads_that_wait_for_ever(write):
    text = HEAD + "void stuck() { if (threadIdx.x < 7) warp_sum(1.0f); else __syncthreads(); }"
    with pytest.raises(KernelError, match="deadlock"):
        Kernel(write(text, "stuck", "")).launch(CPU, 1)


def test_the_emulator_sees_writes_past_shared_memory(write):
    text = HEAD + "void past() { DYNAMIC_SHARED(s); s[threadIdx.x + 1] = 7; __syncthreads(); }"
    with pytest.raises(KernelError, match="past the end"):
        Kernel(write(text, "past", "", shared_bytes=64)).launch(CPU, 1)


CONVERSIONS = """
#include "octavo.cuh"
extern "C" __global__ void conversions(const float* in, T* out, float* back, int count) {
  for (int i = threadIdx.x; i < count; i += THREADS) {
    out[i] = from_float<T>(in[i]);
    back[i] = to_float(out[i]);
  }
}
"""


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_emulator_rounds_as_torch_does(write, dtype):
    bits = torch.randint(-(1 << 31), 1 << 31, (4096,), dtype=torch.int64).to(torch.int32)
    values = bits.view(torch.float32)
    values = torch.cat([values[values.isfinite()], torch.randn(4096), torch.tensor([0.0, -0.0, torch.inf, -torch.inf])])
    out, back = torch.empty_like(values, dtype=dtype), torch.empty_like(values)
    source = write(CONVERSIONS, "conversions", "PPPi", defines=(("T", str(dtype)[6:]),))
    Kernel(source).launch(CPU, 1, values, out, back, len(values))
    assert torch.equal(out, values.to(dtype))
    assert torch.equal(back, out.float())


def test_the_emulator_reads_fp8_as_torch_does(write):
    bits = torch.arange(256, dtype=torch.uint8)
    out = torch.empty(256)
    text = (
        HEAD
        + "void fp8(const float8_e4m3fn* in, float* out) { for (int i = 0; i < 256; i++) out[i] = to_float(in[i]); }"
    )
    Kernel(write(text, "fp8", "PP", threads=1)).launch(CPU, 1, bits, out)
    assert torch.equal(out.nan_to_num(7.5), bits.view(torch.float8_e4m3fn).float().nan_to_num(7.5))


def test_no_kernel_reads_past_its_inputs():
    program = Path(__file__).parents[1] / "support" / "cuda_guarded.py"
    names = ["vector_add", "reduce", "layer_norm_gelu", "fused_gemm", "paged_attention"]
    done = subprocess.run([sys.executable, str(program), *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (
        f"{done.returncode} after: {done.stdout.strip().splitlines()[-1:]} {done.stderr[-2000:]}"
    )


def test_several_products_in_one_launch_are_each_right():
    a, b = torch.randn(3, 20, 40).bfloat16(), torch.randn(3, 40, 24).bfloat16()
    for one, expected in zip(grouped(a, b), serial(a, b), strict=True):
        assert torch.equal(one, expected)
