"""The laws of the house that a machine can check: rooms on the map, no code from data, no hidden state, sizes, documents."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from octavo.cli.main import run
from octavo.kernels.registry import NAMES

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "octavo"
FILES = sorted(PACKAGE.rglob("*.py"))

FORBIDDEN_IMPORTS = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "transformers", "openai"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "torch.load",
    "torch.jit.load",
    "os.system",
    "numpy.load",
    "np.load",
}
OUR_VARIABLES = {"OCTAVO_CACHE", "OCTAVO_LOG", "OCTAVO_DEVICE"}
PLATFORM_VARIABLES = {"XDG_CACHE_HOME"}
MUTABLE_MAKERS = {"list", "dict", "set", "bytearray", "defaultdict", "deque", "OrderedDict", "Counter", "count"}
MUTATORS = {
    "append",
    "extend",
    "insert",
    "add",
    "update",
    "setdefault",
    "pop",
    "popitem",
    "clear",
    "remove",
    "discard",
    "sort",
}
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 360
MAX_PARAMETERS = 6


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def dotted(node: ast.expr) -> str:
    """``torch.jit.load`` for that expression, empty for what is not a plain name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


each_file = pytest.mark.parametrize("path", FILES, ids=name_of)


def test_every_room_is_on_the_map() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rooms = [entry for entry in PACKAGE.iterdir() if not entry.name.startswith("__") and entry.suffix in ("", ".py")]
    missing = [entry.name for entry in rooms if f"`{entry.name}{'/' if entry.is_dir() else ''}`" not in text]
    assert not missing, f"ARCHITECTURE.md does not name {missing}"


def test_the_map_names_no_room_that_is_not_there() -> None:
    named = re.findall(r"^\| `(\w+)/`", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [room for room in named if not (PACKAGE / room).is_dir()] == []


def test_no_room_is_empty() -> None:
    folders = {path.parent for path in FILES}
    empty = [name_of(folder) for folder in folders if not [one for one in folder.rglob("*.py") if one.stat().st_size]]
    assert empty == []


@each_file
def test_no_code_comes_from_data(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            assert FORBIDDEN_IMPORTS.isdisjoint(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in FORBIDDEN_IMPORTS
        elif isinstance(node, ast.Call):
            of_nothing = ast.unparse(node) == "exec('')"
            assert of_nothing or dotted(node.func) not in FORBIDDEN_CALLS, f"{dotted(node.func)} in line {node.lineno}"
            shell = [one for one in node.keywords if one.arg == "shell"]
            assert not shell, f"shell= in line {node.lineno}"


@each_file
def test_no_hidden_state(path: Path) -> None:
    tree = tree_of(path)
    constants: set[str] = set()
    for statement in tree.body:
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
            continue
        value = statement.value
        maker = dotted(value.func).split(".")[-1] if isinstance(value, ast.Call) else ""
        if isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp) or (
            maker in MUTABLE_MAKERS
        ):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = {dotted(target) for target in targets} - {"__all__"}
            assert all(name.isupper() for name in names), f"module-level state {names} in line {statement.lineno}"
            constants |= names
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Global), f"global in line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
            assert dotted(node.func.value) not in constants, f"a constant is changed in line {node.lineno}"
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            assert dotted(node.value) not in constants, f"a constant is changed in line {node.lineno}"


def test_at_most_three_environment_variables_are_read() -> None:
    read: set[str] = set()
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and dotted(node.func) in ("os.environ.get", "os.getenv"):
                assert isinstance(node.args[0], ast.Constant), (
                    f"{name_of(path)}:{node.lineno} reads a computed variable"
                )
                read.add(node.args[0].value)
            elif isinstance(node, ast.Subscript) and dotted(node.value) == "os.environ":
                assert isinstance(node.slice, ast.Constant), f"{name_of(path)}:{node.lineno} reads a computed variable"
                read.add(node.slice.value)
    assert read - PLATFORM_VARIABLES <= OUR_VARIABLES


@each_file
def test_a_file_says_what_it_answers_and_fits_in_a_head(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = tree_of(path)
    if tree.body:
        assert ast.get_docstring(tree), "no module docstring"
    assert len(text.splitlines()) <= MAX_FILE_LINES
    for function in functions(tree):
        assert function.end_lineno is not None
        num_lines = function.end_lineno - function.lineno + 1
        assert num_lines <= MAX_FUNCTION_LINES, f"{function.name} has {num_lines} lines"


@each_file
def test_functions_take_few_parameters(path: Path) -> None:
    if path.parent.name == "cli":
        return  # a command's parameters are its flags
    if path.parent.name in NAMES and path.parent.parent.name == "kernels":
        return  # an operation's arguments are flat, as torch.library wants them; a GPU kernel's are its launch
    for function in functions(tree_of(path)):
        arguments = function.args
        names = [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        names = [name for name in names if name not in ("self", "cls")]
        assert len(names) <= MAX_PARAMETERS, f"{function.name} takes {names}"


def readme_commands(program: str) -> list[list[str]]:
    """Command lines of the README's shell blocks that start with ``program``, without comments, pipes and redirections."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = []
    for block in re.findall(r"^```(?:bash|sh|console|shell)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            end = next((i for i, word in enumerate(words) if re.fullmatch(r"[|&;<>].*|\d?>.*", word)), len(words))
            if words[:1] == [program]:
                commands.append(words[1:end])
    return commands


def test_the_commands_of_the_readme_parse(capsys: pytest.CaptureFixture[str]) -> None:
    commands = readme_commands("octavo")
    assert commands, "README.md shows no octavo command"
    for arguments in commands:
        assert run([*arguments, "--help"]) == 0, f"octavo {' '.join(arguments)}: {capsys.readouterr().err}"


def test_the_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [word for words in readme_commands("make") for word in words if re.fullmatch(r"[a-z-]+", word)]
    assert {"serve", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"no target {target}"


def test_the_wheel_holds_everything(tmp_path: Path) -> None:
    """What `pip install` gives is the package, data files included, and it works from there."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    (wheel,) = tmp_path.glob("octavo-*.whl")
    # zipimport: nothing is unpacked, so nothing of the checkout can help
    code = (
        f"import sys; sys.path.insert(0, {str(wheel)!r})\n"
        "import octavo, octavo.cli.main\n"
        "from octavo.models.registry import model_registry\n"
        f"assert octavo.__file__.startswith({str(wheel)!r}), octavo.__file__\n"
        "print(octavo.__version__, len(model_registry().entries), octavo.cli.main.run(['serve', '--help']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\d+\.\d+\.\d+ \d+ 0", done.stdout.splitlines()[-1])
    import zipfile

    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("octavo/")}
    here = {str(path.relative_to(PACKAGE.parent)) for path in PACKAGE.rglob("*") if path.is_file()}
    assert inside == {name for name in here if "__pycache__" not in name}
