"""The laws of the house that a machine can check: rooms on the map, no code from data, no hidden state, sizes, documents."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
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
QUESTION = re.compile(r"\?|^(?:Does|Do|Is|Are|Can|Why|What|How|Who|Which)\b")
COMMENTED = {".cpp", ".hpp", ".h", ".cu", ".cuh"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def dotted(node: ast.expr) -> str:
    """``torch.jit.load`` for that expression, empty for what is not a plain name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@dataclass(frozen=True)
class Source:
    """One file of the package, read and parsed once for all laws."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def nodes(self) -> Iterator[ast.AST]:
        return ast.walk(self.tree)

    def at(self, line: int, what: str) -> str:
        return f"{self.path.relative_to(ROOT)}:{line}: {what}"


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    texts = [(path, path.read_text(encoding="utf-8")) for path in FILES]
    return [Source(path, text, ast.parse(text, str(path))) for path, text in texts]


def lawful(offenders: Iterable[str]) -> None:
    """Every breach of a law at once, a line each."""
    found = list(offenders)
    assert not found, "\n".join(["", *found])


def test_every_room_is_on_the_map() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rooms = [entry for entry in PACKAGE.iterdir() if not entry.name.startswith("__") and entry.suffix in ("", ".py")]
    missing = [entry.name for entry in rooms if f"`{entry.name}{'/' if entry.is_dir() else ''}`" not in text]
    assert not missing, f"ARCHITECTURE.md does not name {missing}"


def test_the_map_names_no_room_that_is_not_there() -> None:
    named = re.findall(r"^\| `(\w+)/`", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [room for room in named if not (PACKAGE / room).is_dir()] == []


def imports(source: Source) -> Iterator[str]:
    """Rooms and top-level files of the package that a file imports."""
    for node in source.nodes:
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [f"octavo.{alias.name}" for alias in node.names] if module == "octavo" else [module]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name.split(".")[1] for name in names if name.startswith("octavo."))


def test_the_map_says_what_each_room_imports(sources: list[Source]) -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `(\w+)/` \|.*\| ([^|]*) \|$", text, re.MULTILINE)
    offenders = []
    for room, column in table:
        if column == "everything":
            continue
        stated = set() if column == "nothing else" else set(column.split(", "))
        found = {name for source in sources if source.path.is_relative_to(PACKAGE / room) for name in imports(source)}
        found -= {room, "errors", "__version__"}
        offenders += [
            f"{room}/ imports {name}, which ARCHITECTURE.md does not state" for name in sorted(found - stated)
        ]
        offenders += [
            f"{room}/ no longer imports {name}, which ARCHITECTURE.md states" for name in sorted(stated - found)
        ]
    lawful(offenders)


def test_no_room_is_empty() -> None:
    folders = {path.parent for path in FILES}
    empty = [name_of(folder) for folder in folders if not [one for one in folder.rglob("*.py") if one.stat().st_size]]
    assert empty == []


def code_from_data(source: Source) -> Iterator[str]:
    for node in source.nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in FORBIDDEN_IMPORTS:
                    yield source.at(node.lineno, f"imports {alias.name}")
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in FORBIDDEN_IMPORTS:
                yield source.at(node.lineno, f"imports from {node.module}")
        elif isinstance(node, ast.Call):
            if dotted(node.func) in FORBIDDEN_CALLS and ast.unparse(node) != "exec('')":
                yield source.at(node.lineno, f"calls {dotted(node.func)}")
            if any(one.arg == "shell" for one in node.keywords):
                yield source.at(node.lineno, "passes shell=")


def test_no_code_comes_from_data(sources: list[Source]) -> None:
    lawful(chain.from_iterable(map(code_from_data, sources)))


def is_mutable(value: ast.expr) -> bool:
    maker = dotted(value.func).split(".")[-1] if isinstance(value, ast.Call) else ""
    kinds = ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp
    return isinstance(value, kinds) or maker in MUTABLE_MAKERS


def hidden_state(source: Source) -> Iterator[str]:
    constants: set[str] = set()
    for statement in source.tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value and is_mutable(statement.value):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = {dotted(target) for target in targets} - {"__all__"}
            if not all(name.isupper() for name in names):
                yield source.at(statement.lineno, f"module-level state {names}")
            constants |= names
    for node in source.nodes:
        if isinstance(node, ast.Global):
            yield source.at(node.lineno, "global")
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS
        if called and dotted(node.func.value) in constants:
            yield source.at(node.lineno, "a constant is changed")
        stored = isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del)
        if stored and dotted(node.value) in constants:
            yield source.at(node.lineno, "a constant is changed")


def test_no_hidden_state(sources: list[Source]) -> None:
    lawful(chain.from_iterable(map(hidden_state, sources)))


def variables_read(source: Source) -> Iterator[tuple[int, str | None]]:
    """Line and name of each environment variable that is read; no name where it is computed."""
    for node in source.nodes:
        name: ast.expr | None = None
        if isinstance(node, ast.Call) and dotted(node.func) in ("os.environ.get", "os.getenv"):
            name = node.args[0]
        elif isinstance(node, ast.Subscript) and dotted(node.value) == "os.environ":
            name = node.slice
        if name is not None:
            yield node.lineno, name.value if isinstance(name, ast.Constant) else None


def test_at_most_three_environment_variables_are_read(sources: list[Source]) -> None:
    allowed = OUR_VARIABLES | PLATFORM_VARIABLES
    lawful(
        source.at(line, f"reads {name or 'a computed variable'}")
        for source in sources
        for line, name in variables_read(source)
        if name not in allowed
    )


def oversized(source: Source) -> Iterator[str]:
    if source.tree.body and not ast.get_docstring(source.tree):
        yield source.at(1, "no module docstring")
    num_lines = len(source.text.splitlines())
    if num_lines > MAX_FILE_LINES:
        yield source.at(1, f"{num_lines} lines, at most {MAX_FILE_LINES}")
    for function in functions(source.tree):
        assert function.end_lineno is not None
        num_lines = function.end_lineno - function.lineno + 1
        if num_lines > MAX_FUNCTION_LINES:
            yield source.at(function.lineno, f"{function.name} has {num_lines} lines, at most {MAX_FUNCTION_LINES}")


def test_a_file_has_a_first_line_and_fits_in_a_head(sources: list[Source]) -> None:
    lawful(chain.from_iterable(map(oversized, sources)))


def first_lines() -> Iterator[tuple[Path, str]]:
    """First line of each source file's docstring (Python) or leading comment (C++, CUDA), tests and benchmarks included."""
    for path in chain.from_iterable((ROOT / folder).rglob("*") for folder in ("src", "tests", "benchmarks")):
        if path.suffix == ".py":
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            yield path, docstring.partition("\n")[0]
        elif path.suffix in COMMENTED:
            yield path, path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("//").strip()


def test_a_first_line_is_no_question() -> None:
    lawful(f"{name_of(path)}: {line}" for path, line in first_lines() if QUESTION.search(line))


def many_parameters(source: Source) -> Iterator[str]:
    parent = source.path.parent
    if parent.name == "cli":
        return  # a command's parameters are its flags
    if parent.name in NAMES and parent.parent.name == "kernels":
        return  # an operation's arguments are flat, as torch.library wants them; a GPU kernel's are its launch
    for function in functions(source.tree):
        arguments = function.args
        names = [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        names = [name for name in names if name not in ("self", "cls")]
        if len(names) > MAX_PARAMETERS:
            yield source.at(function.lineno, f"{function.name} takes {names}")


def test_functions_take_few_parameters(sources: list[Source]) -> None:
    lawful(chain.from_iterable(map(many_parameters, sources)))


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
