"""How the source is laid out: sizes of files and functions, what only the command line may know, who asks for kinds."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "glimpsenet"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {file: ast.parse(file.read_text()) for file in FILES}
NAMES = [str(file.relative_to(PACKAGE)) for file in FILES]
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
FLAG = re.compile(r"(?<![\w-])--[a-z]")
PROVENANCE_ASKS_GIT = {"--error-unmatch", "--porcelain"}
KINDS = re.compile(r"(Token|Linear|Spatiotemporal|Custom|Digits|Folder|Pathwise|ValueMap|Boxes|Attention\w*)Config$")


def strings(tree: ast.Module) -> Iterator[str]:
    """Literals that are no docstrings and no documentation of attributes."""
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_file_has_at_most_450_lines_and_a_function_50(file):
    assert len(file.read_text().splitlines()) <= 450
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1}"
        for node in ast.walk(TREES[file])
        if isinstance(node, FUNCTIONS) and node.end_lineno and node.end_lineno - node.lineno >= 50
    ]
    assert not long


def test_the_command_line_stays_thin():
    assert sum(len(file.read_text().splitlines()) for file in (PACKAGE / "cli").glob("*.py")) <= 1210


@pytest.mark.parametrize("file", [f for f in FILES if "cli" not in f.parts], ids=[n for n in NAMES if "cli" not in n])
def test_the_library_names_no_flag(file):
    assert not [text for text in strings(TREES[file]) if FLAG.search(text) and text not in PROVENANCE_ASKS_GIT]


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_kinds_are_asked_what_they_do_and_not_what_they_are(file):
    asked = [
        name.id
        for node in ast.walk(TREES[file])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance"
        for name in ast.walk(node.args[1])
        if isinstance(name, ast.Name) and KINDS.search(name.id)
    ]
    assert not asked
