"""The documentation that travels with every interpreter, read from its source with ``ast``: no
module is imported."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import platform
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from groundup.core.errors import DataError

__all__ = [
    "LICENCE",
    "DocumentedObject",
    "SourceDocument",
    "corpus_key",
    "extract_documents",
    "python_documents",
    "python_version",
]

FORMAT = 1  # raise it when the extraction changes, so that old caches are not read
LICENCE = "Python Software Foundation License Version 2"
# tests and installed packages are no documentation of the library
_SKIPPED_FOLDERS = frozenset(
    {
        "__pycache__",
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "idle_test",
        "lib-dynload",
        "_bundled",
        "__phello__",
    }
)
# importing these prints or opens a browser; they are read only, but document nothing
_SKIPPED_FILES = frozenset({"this.py", "antigravity.py", "__hello__.py"})
# machine-made settings of the build
_SKIPPED_PREFIXES = ("_sysconfigdata", "config-")
_LONGEST_SIGNATURE = 320  # characters; a few signatures would otherwise be a page of defaults
_LONGEST_DEFAULT = 40
_KIND_HEADINGS = {"class": "class ", "function": "def ", "method": "def "}


@dataclass(frozen=True)
class DocumentedObject:
    """A class, function or method that has a docstring.

    Attributes:
        name: The qualified name, module first, such as ``textwrap.TextWrapper.wrap``.
        kind: ``class``, ``function`` or ``method``.
        signature: The arguments in parentheses and the returned type, without ``self``; empty where
            unknown.
        text: The docstring, with the source's indentation removed.
        line: Where the definition starts in its file.
    """

    name: str
    kind: str
    signature: str
    text: str
    line: int

    @property
    def public(self) -> bool:
        """Whether no part of the name starts with an underscore."""
        return not any(part.startswith("_") for part in self.name.split("."))


@dataclass(frozen=True)
class SourceDocument:
    """One module with all its docstrings, or one language topic. ``origin`` is relative to the
    library."""

    name: str
    text: str
    origin: str
    objects: tuple[DocumentedObject, ...] = ()


def python_version() -> str:
    """Return the implementation and version whose documentation this is, such as
    ``cpython-3.11.7``."""
    return f"{platform.python_implementation().lower()}-{platform.python_version()}"


def corpus_key() -> str:
    """Return a name that changes with the interpreter, its version, where its library is, and how
    it is read."""
    # two interpreters of one version may have other libraries, such as a distribution's patches
    library = hashlib.sha256(sysconfig.get_path("stdlib").encode()).hexdigest()[:8]
    return f"{python_version()}-{library}-{FORMAT}"


def python_documents(cache: Path) -> list[SourceDocument]:
    """Return the documents of this interpreter, from the cache folder where they were extracted
    before.

    Raises:
        DataError: If the interpreter was installed without its library's source.
    """
    library = Path(sysconfig.get_path("stdlib"))
    path = cache / f"python-documents-{corpus_key()}.jsonl"
    if not path.is_file():
        documents = extract_documents(library)
        _write_documents(path, documents)
        return documents
    with path.open(encoding="utf-8") as lines:
        return [_from_json(line) for line in lines]


def extract_documents(library: Path) -> list[SourceDocument]:
    """Read every module below ``library`` (a standard library's folder), in the order of their
    names.

    Raises:
        DataError: If there are no Python files, as in an interpreter shipped without source.
    """
    documents = [
        document for path in _list_modules(library) for document in _read_module(path, library)
    ]
    if not documents:
        raise DataError(
            str(library),
            "holds no Python source to read documentation from",
            "Use an interpreter with its library",
        )
    return sorted(documents, key=lambda document: document.name)


def _list_modules(library: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(library):
        folders[:] = sorted(
            f for f in folders if f not in _SKIPPED_FOLDERS and not f.startswith(_SKIPPED_PREFIXES)
        )
        for name in sorted(files):
            if (
                name.endswith(".py")
                and name not in _SKIPPED_FILES
                and not name.startswith(_SKIPPED_PREFIXES)
            ):
                yield Path(folder) / name


def _read_module(path: Path, library: Path) -> list[SourceDocument]:
    relative = path.relative_to(library).with_suffix("")
    parts = relative.parts[:-1] if relative.name == "__init__" else relative.parts
    origin = path.relative_to(library).as_posix()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in old modules
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # fixtures that are wrong on purpose
        return []
    if parts == ("pydoc_data", "topics"):
        return list(_read_topics(tree, origin))
    return [_to_document(".".join(parts), tree, origin)]


def _read_topics(tree: ast.Module, origin: str) -> Iterator[SourceDocument]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if (
                    isinstance(key, ast.Constant)
                    and isinstance(value, ast.Constant)
                    and isinstance(value.value, str)
                ):
                    yield SourceDocument(
                        f"topics.{key.value!s}", inspect.cleandoc(value.value), origin
                    )


def _to_document(name: str, tree: ast.Module, origin: str) -> SourceDocument:
    # by name: a platform's variants of a function say the same twice
    found: dict[str, DocumentedObject] = {}
    for item in _find_objects(tree.body, name, "function"):
        found.setdefault(
            item.name, item
        )  # a second definition under another condition says the same
    parts = [f"module {name}", ast.get_docstring(tree) or ""]
    for item in found.values():
        short = item.name.removeprefix(f"{name}.")
        parts += [f"{_KIND_HEADINGS[item.kind]}{short}{item.signature}", item.text]
    has_text = bool(parts[1] or found)
    return SourceDocument(
        name, "\n\n".join(p for p in parts if p) if has_text else "", origin, tuple(found.values())
    )


def _find_objects(body: list[ast.stmt], prefix: str, kind: str) -> Iterator[DocumentedObject]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _describe_object(
                node, f"{prefix}.{node.name}", kind, _signature_of(node, bound=kind == "method")
            )
        elif isinstance(node, ast.ClassDef):
            yield from _describe_object(
                node, f"{prefix}.{node.name}", "class", _class_signature(node)
            )
            yield from _find_objects(node.body, f"{prefix}.{node.name}", "method")
        elif isinstance(node, ast.If | ast.Try | ast.With):
            blocks = [node.body]
            if isinstance(node, ast.If | ast.Try):
                blocks.append(node.orelse)
            if isinstance(node, ast.Try):
                blocks += [node.finalbody, *(handler.body for handler in node.handlers)]
            for block in blocks:
                yield from _find_objects(block, prefix, kind)


def _describe_object(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef,
    name: str,
    kind: str,
    signature: str,
) -> Iterator[DocumentedObject]:
    # without a docstring there is nothing to learn from a name
    text = (ast.get_docstring(node) or "").strip()
    if text:
        yield DocumentedObject(name, kind, signature, text, node.lineno)


def _class_signature(node: ast.ClassDef) -> str:
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return _signature_of(item, bound=True)
    return ""


def _signature_of(node: ast.FunctionDef | ast.AsyncFunctionDef, bound: bool) -> str:
    decorators = {d.id for d in node.decorator_list if isinstance(d, ast.Name)}
    if "property" in decorators:
        return ""
    arguments = _short_defaults(node.args)
    positional = arguments.posonlyargs or arguments.args
    if bound and "staticmethod" not in decorators and positional:
        del positional[0]  # self or cls
    places = len(arguments.posonlyargs) + len(arguments.args)
    # when self goes, a default may have lost its argument
    del arguments.defaults[: max(0, len(arguments.defaults) - places)]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    signature = f"({ast.unparse(arguments)}){returns}"
    return signature if len(signature) <= _LONGEST_SIGNATURE else "(...)"


def _short_defaults(arguments: ast.arguments) -> ast.arguments:
    """Return a copy with ``...`` for every default that would be long."""

    def short(value: ast.expr) -> ast.expr:
        return value if len(ast.unparse(value)) <= _LONGEST_DEFAULT else ast.Constant(...)

    return ast.arguments(
        posonlyargs=list(arguments.posonlyargs),
        args=list(arguments.args),
        vararg=arguments.vararg,
        kwonlyargs=arguments.kwonlyargs,
        kw_defaults=[value and short(value) for value in arguments.kw_defaults],
        kwarg=arguments.kwarg,
        defaults=[short(value) for value in arguments.defaults],
    )


def _write_documents(path: Path, documents: list[SourceDocument]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("w", encoding="utf-8") as file:
        for document in documents:
            file.write(json.dumps(asdict(document), ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _from_json(line: str) -> SourceDocument:
    fields = json.loads(line)
    objects = tuple(DocumentedObject(**item) for item in fields.pop("objects"))
    return SourceDocument(**fields, objects=objects)
