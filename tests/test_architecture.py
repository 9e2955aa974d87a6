"""The rules of the architecture, read from the source: who imports whom, how large things are, what
is banned."""

from __future__ import annotations

import ast
import re
import statistics
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from syntax import dotted, nodes_below, nodes_of, tree_of

pytestmark = pytest.mark.xdist_group("architecture")  # every file is read once
ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "groundup"
FILES = sorted(PACKAGE.rglob("*.py"))
# Imports go to lower tiers; inside a tier only to folders written earlier in its line.
TIERS = (
    ("core", "contracts"),
    ("formats", "media", "metrics", "recipe", "machine", "parallel", "nn", "generation", "games"),
    ("data", "processors", "models", "tasks"),
    ("runs", "reports", "weights", "training", "inference", "tuning", "export", "planning"),
    ("api",),
    ("testing", "templates", "serve", "cli", "__main__", ""),
)
TIER = {folder: number for number, folders in enumerate(TIERS) for folder in folders}
PLACE = {folder: place for folders in TIERS for place, folder in enumerate(folders)}
PLUGINS = 2  # the tier of what recipes name, reached through the registry from above
IMPORT_NAMES = {"pyyaml": "yaml", "rouge-score": "rouge_score", "beautifulsoup4": "bs4"}
READING_PATH = (
    "cli/main.py",
    "api.py",
    "recipe/recipe.py",
    "training/trainer.py",
    "tasks/language_modeling.py",
    "models/gpt.py",
    "runs/checkpoint.py",
)


def module_of(path: Path) -> str:
    """Return the dotted name below the package: ``core.run``; the package itself is ``""``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_of(path: Path) -> Iterator[str]:
    """Yield every absolute name imported, lazily or not: ``groundup.runs.run``, ``numpy``."""
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else str(node.module) for name in submodules)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            yield from (
                a.value
                for a in node.args
                if isinstance(a, ast.Constant) and isinstance(a.value, str)
            )


MODULES = {f"groundup.{module_of(path)}".rstrip("."): path for path in FILES}


@cache
def own_imports(path: Path) -> tuple[str, ...]:
    names = sorted({name for name in imports_of(path) if name.split(".")[0] == "groundup"})
    return tuple(name.removeprefix("groundup").removeprefix(".") for name in names)


def fault_in(module: str, other: str) -> str:
    """Return what is wrong with an import, or an empty text."""
    folder = module.split(".")[0]
    imported = other.split(".")[0]
    if folder == imported:
        return ""
    tier, below = TIER[folder], TIER[imported]
    if below > tier:
        return "it is in a higher tier"
    if below == tier == PLUGINS:
        reads_its_processor = (folder, imported) == ("tasks", "processors")
        return "" if reads_its_processor else "plugin folders do not know each other"
    if below == tier and PLACE[imported] > PLACE[folder]:
        return "it is a later folder of the same tier"
    if below == PLUGINS and tier == PLUGINS + 1:
        return "plugins are reached through the registry"
    return ""


def test_imports_go_downward() -> None:
    found = {
        f"{module_of(path)} imports {other}: {fault}"
        for path in FILES
        for other in own_imports(path)
        if (fault := fault_in(module_of(path), other))
    }
    assert found == set()


def test_no_cycles_not_even_lazy_ones() -> None:
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for other in own_imports(MODULES[f"groundup.{module}".rstrip(".")]):
                visit(other, (*trail, module))
            done.add(module)

    for path in FILES:
        visit(module_of(path), ())


def closure_of(module: str) -> set[str]:
    """Return every module of the package that one imports, directly or through others."""
    found: set[str] = set()
    left = [module]
    while left:
        current = left.pop()
        if current not in found:
            found.add(current)
            left += own_imports(MODULES[f"groundup.{current}".rstrip(".")])
    return {name for name in found if MODULES[f"groundup.{name}".rstrip(".")].name != "__init__.py"}


def test_the_trainer_imports_few_files() -> None:
    found = closure_of("training.trainer")
    assert len(found) <= 45, sorted(found)


# Each looks at a finished model from outside, for a check, and removes its hooks; the last one only
# takes note of which parameters a backward pass has reached.
HOOKS = {
    "export.verify",
    "export.huggingface",
    "inference.llama_cpp_parity",
    "testing.models",
    "parallel.shard",
}


def test_no_model_is_altered_by_hooks() -> None:
    """What a step computes is written down in its objective."""
    for path in FILES:
        names = {getattr(node, "attr", "") for node in nodes_of(path)}
        found = {name for name in names if re.fullmatch(r"register_.*hook", name)}
        assert not found or module_of(path) in HOOKS, f"{path}: {found}"
        replaced = [
            node.lineno
            for node in nodes_of(path)
            if isinstance(node, ast.Assign)
            and any(getattr(target, "attr", "") == "forward" for target in node.targets)
        ]
        assert not replaced, f"{path}:{replaced} replaces a model's forward"


def test_reading_a_recipe_does_not_import_torch() -> None:
    for path in FILES:
        if module_of(path).split(".")[0] == "recipe":
            assert not [name for name in imports_of(path) if name.split(".")[0] == "torch"], path


def _required() -> set[str]:
    """Return the import names of the libraries that are always installed."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "dependencies"
    ]
    names = [re.split(r"[^\w-]", requirement)[0].lower() for requirement in listed]
    return {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names}


def test_an_optional_library_is_imported_in_one_file_and_lazily() -> None:
    required = (
        _required() | set(sys.stdlib_module_names) | {"groundup", "pydantic_core", "markupsafe"}
    )
    users: dict[str, set[Path]] = {}
    for path in FILES:
        for name in imports_of(path):
            if name.split(".")[0] not in required:
                users.setdefault(name.split(".")[0], set()).add(path)
    for library, paths in users.items():
        assert len(paths) == 1, f"{library} is imported by {sorted(map(str, paths))}"
        (path,) = paths
        top = {
            name.split(".")[0]
            for node in tree_of(path).body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
            )
        }
        assert library not in top, f"{path} imports {library} before it is needed"
        assert "MissingExtraError" in path.read_text(encoding="utf-8"), (
            f"{path} does not say how to install {library}"
        )


def test_every_requirement_is_used() -> None:
    imported = {name for path in FILES for name in imports_of(path)}
    used = {name.split(".")[0] for name in imported}
    if "torch.utils.tensorboard" in imported:  # PyTorch's writer is made of that library's
        used.add("tensorboard")
    assert _required() - used == set()


# ---------------------------------------------------------------------------------- sizes and names
def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in FILES:
        for node in nodes_of(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{module_of(path)}.{node.name}", node


def calls_backward(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "backward"


def lines_of(node: Any) -> int:
    return int(node.end_lineno) - int(node.lineno) + 1


def docstring_lines(tree: ast.AST) -> set[int]:
    found: set[int] = set()
    for node in nodes_below(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            found |= set(range(node.lineno, int(node.end_lineno or node.lineno) + 1))
    return found


def lines_of_code(path: Path) -> int:
    """Return how many lines are left without docstrings, comments and blank lines."""
    lines = path.read_text(encoding="utf-8").splitlines()
    words = docstring_lines(tree_of(path)) if path.suffix == ".py" else set()
    return sum(
        1
        for n, line in enumerate(lines, 1)
        if n not in words and line.strip() and line.strip()[0] != "#"
    )


def test_functions_are_short() -> None:
    assert [name for name, node in functions() if lines_of(node) > 80] == []
    assert (
        statistics.median(lines_of(node) - len(docstring_lines(node)) for _, node in functions())
        <= 10
    )


def test_the_one_hour_reading_path() -> None:
    recipe = ROOT / "recipes" / "quickstart" / "pretrain.yaml"
    paths = [PACKAGE / name for name in READING_PATH] + ([recipe] if recipe.is_file() else [])
    sizes = {path.name: lines_of_code(path) for path in paths}
    assert sum(sizes.values()) <= 1600, sizes


def test_names_say_what_things_are() -> None:
    named = [
        node.name for path in FILES for node in nodes_of(path) if isinstance(node, ast.ClassDef)
    ]
    named += [name for name, _ in functions()] + list(MODULES)
    assert [
        name
        for name in named
        if re.search(r"(^|[._])utils?($|[._])|Manager|Base|Helper|Utils", name)
    ] == []


# --------------------------------------------------------------------------------- what is not done
def test_nothing_runs_code_from_data() -> None:
    unsafe = {"pickle", "dill", "cloudpickle", "marshal", "shelve"}
    banned = {"eval", "exec", "yaml.load", "yaml.unsafe_load", "torch.load", "torch.save"}
    for path in FILES:
        assert not {name.split(".")[0] for name in imports_of(path)} & unsafe, path
        for node in nodes_of(path):
            if isinstance(node, ast.Call):
                called = dotted(node.func)
                assert called not in banned, f"{path}:{node.lineno} calls {called}"
                pickled = [
                    k
                    for k in node.keywords
                    if k.arg == "allow_pickle" and ast.unparse(k.value) != "False"
                ]
                assert not pickled, f"{path}:{node.lineno}"


def test_there_is_one_training_loop() -> None:
    """The checks of contracts look at gradients, too, but update nothing with them; where the
    layers are divided, forward and backward passes of one step of the loop take turns."""
    found = [module_of(path) for path in FILES if any(map(calls_backward, nodes_of(path)))]
    loop = [name for name in found if not name.startswith("testing.")]
    assert loop == ["parallel.pipeline", "training.trainer"]


def test_no_implementation_is_inherited_from_our_own_classes() -> None:
    """Our classes are abstract or final."""
    concrete = {
        node.name
        for path in FILES
        for node in tree_of(path).body
        if isinstance(node, ast.ClassDef)
        and path.parent.name != "contracts"
        and not path.name.startswith(("errors", "settings"))
    }
    for path in FILES:
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef):
                inherited = {ast.unparse(parent).split("[")[0] for parent in node.bases} & concrete
                assert not inherited or _is_abstract(inherited), (
                    f"{module_of(path)}.{node.name} inherits {inherited}"
                )


def _is_abstract(names: set[str]) -> bool:
    for path in FILES:
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef) and node.name in names:
                parents = {ast.unparse(parent).split("[")[0] for parent in node.bases}
                if not parents & {"ABC", "Protocol"}:
                    return False
    return True


def test_all_lists_what_a_module_defines() -> None:
    for path in FILES:
        body = tree_of(path).body
        if (
            path.name != "__init__.py" or path.parent == PACKAGE or len(body) > 1
        ):  # else a folder, no module
            _check_all(path, body)


def _check_all(path: Path, body: list[ast.stmt]) -> None:
    declared = [
        n for n in body if isinstance(n, ast.Assign | ast.AnnAssign) and _target(n) == "__all__"
    ]
    assert len(declared) == 1, f"{path} declares no __all__"
    assert declared[0].value is not None
    exported = ast.literal_eval(declared[0].value)
    assert len(exported) == len(set(exported)), path
    code = (
        n.name for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not _is_command(n)
    )
    values = {_target(n) for n in body if isinstance(n, ast.Assign | ast.AnnAssign)}
    public = {name for name in code if not name.startswith("_")}
    assert public <= set(exported), f"{path}: not in __all__: {public - set(exported)}"
    if path.parent.name == "testing" and path.name == "__init__.py":
        return  # a front door: it gives the checks of its modules one place
    if path != PACKAGE / "__init__.py":
        assert set(exported) <= public | _names_in(values), f"{path} names what is not defined here"


def _is_command(node: ast.FunctionDef | ast.ClassDef) -> bool:
    """Whether it is a verb of the command line, reached through ``app``."""
    return any(".command(" in ast.unparse(decorator) for decorator in node.decorator_list)


def _target(node: ast.Assign | ast.AnnAssign) -> str:
    return ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)


def _names_in(targets: set[str]) -> set[str]:
    return {name for target in targets for name in re.findall(r"\w+", target)}


def test_test_modules_have_names_of_their_own() -> None:
    """Two of one name cannot be collected together, which no test of one of them would show."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
