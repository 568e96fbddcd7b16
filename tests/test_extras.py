"""Missing optional packages: one line that names the extra, before anything is fetched, loaded or measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from octavo.errors import MissingPackageError
from octavo.extras import EXTRA_OF, is_installed, require
from support.installation import OPTIONAL, ROOT, without
from support.native_library import needs_native

TORCH, BENCH = "torch: pip install 'octavo[torch]'", "scipy: pip install 'octavo[bench]'"
TRITON = "triton: pip install 'octavo[gpu]'"
REFUSED = {
    "serve --executor cpu": f"the torch executors need {TORCH}",
    "serve --executor cuda --explain": f"executor = cuda needs {TRITON}",
    "serve --dtype bfloat16": f"dtype = bfloat16 is not theirs (they have stored, int8, int4); the torch executors need {TORCH}",
    "serve --block-size 8": f"block_size = 8 is not a multiple of 16; the torch executors need {TORCH}",
    "generate --executor cpu text": f"the torch executors need {TORCH}",
    "chat --executor cuda": f"executor = cuda needs {TRITON}",
    "kernels list": f"the operations need {TORCH}",
    "kernels check rms_norm": f"the operations need {TORCH}",
    "kernels explain matmul": f"the operations need {TORCH}",
    "bench suite": f"the calibration of the machine needs {TORCH}",
    "bench peers a=http://127.0.0.1:9": f"the calibration of the machine needs {TORCH}",
    "bench run": f"`octavo bench` needs {BENCH}",
    "bench sweep --rates 1": f"`octavo bench` needs {BENCH}",
    "bench compare a.json b.json": f"`octavo bench` needs {BENCH}",
    "bench report a.json": f"the intervals of a report need {BENCH}",
    "schedule compare --loads 0.5": f"the bound beside --loads needs {BENCH}",
    "schedule compare --html a.html": "the plots of --html need matplotlib: pip install 'octavo[bench]'",
}
RUN_ALL = """
import contextlib, io, json, shlex, sys
from octavo.cli.main import run
said = {}
for words in json.load(sys.stdin):
    with contextlib.redirect_stderr(io.StringIO()) as errors, contextlib.redirect_stdout(io.StringIO()) as output:
        code = run(shlex.split(words))
    said[words] = code, output.getvalue(), errors.getvalue()
print(json.dumps(said))
"""


def run_all(commands: list[str], folder: Path, missing: tuple[str, ...] = OPTIONAL) -> dict[str, tuple[int, str, str]]:
    """Exit code, output and errors of each command where the ``missing`` packages are not installed and no model is at hand."""
    environment = without(*missing, OCTAVO_CACHE=str(folder / "cache"))
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL],
        input=json.dumps(commands),
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return {words: tuple(found) for words, found in json.loads(done.stdout).items()}


@needs_native
def test_what_needs_an_extra_says_which_in_one_line_before_any_work(tmp_path: Path) -> None:
    said = run_all(list(REFUSED), tmp_path)
    wrong = {
        words: found
        for words, found in said.items()
        if found[0] != 1 or found[1] or not found[2].endswith(f"{REFUSED[words]}\n") or found[2].count("\n") != 1
    }
    assert not wrong
    assert not list(tmp_path.iterdir())


def test_a_torch_without_triton_serves_no_gpu(tmp_path: Path) -> None:
    refused = f"executor = cuda needs {TRITON}\n"
    for code, output, errors in run_all(
        ["serve --executor cuda", "chat --executor cuda"], tmp_path, ("triton",)
    ).values():
        assert (code, output) == (1, "") and errors.endswith(refused) and errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_report_without_matplotlib_says_so_in_one_line(tmp_path: Path) -> None:
    """Where scipy is installed: half of an extra is refused as well, before the results are read."""
    (said,) = run_all(["bench report a.json"], tmp_path, ("matplotlib",)).values()
    code, output, errors = said
    assert code == 1 and output == "" and errors.count("\n") == 1
    assert errors.endswith("the plots of a report need matplotlib: pip install 'octavo[bench]'\n")


@needs_native
def test_the_base_does_the_rest(tmp_path: Path) -> None:
    commands = [
        "doctor",
        "models list",
        "models packed",
        "bench schema",
        "bench run --help",
        "kernels --help",
        "generate --model fake text",
        "serve fake --explain",
        "schedule compare --trace azure-conv --policies fcfs,slo --num-requests 20",
    ]
    said = run_all(commands, tmp_path)
    assert not {words: found for words, found in said.items() if found[0]}
    assert "not installed; the native kernels need none" in said["doctor"][1]


def test_every_extra_that_is_named_exists() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(f"\n{extra} = [" in text for extra in EXTRA_OF.values())


def test_require(monkeypatch: pytest.MonkeyPatch) -> None:
    require("torch", "nobody here needs")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert not is_installed("pyarrow")
    with pytest.raises(MissingPackageError, match=r"^rows need pyarrow: pip install 'octavo\[bench\]'$") as caught:
        require("pyarrow", "rows need")
    assert caught.value.param == "pyarrow"
