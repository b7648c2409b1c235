"""Vendors' SDKs are imported by one thread at a time: they share packages whose
modules import each other, which Python ends with a deadlock error."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PROVIDERS = Path(__file__).parents[2] / "providers"
SDKS = frozenset({"azure", "boto3", "botocore", "google", "moto", "msal", "requests"})


def imports_of_an_sdk(tree: ast.Module) -> set[int]:
    """Lines that import an SDK while the program runs and do not hold the lock."""
    found: set[int] = set()

    def visit(node: ast.AST, held: bool) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.With):
            held = held or any(
                ast.unparse(item.context_expr) == "sdk_imports" for item in node.items
            )
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = []
        if not held and any(name.split(".")[0] in SDKS for name in names):
            found.add(getattr(node, "lineno", 0))
        for child in ast.iter_child_nodes(node):
            visit(child, held)

    visit(tree, held=False)
    return found


@pytest.mark.parametrize(
    "file", sorted(PROVIDERS.rglob("*.py")), ids=lambda file: str(file.relative_to(PROVIDERS))
)
def test_every_import_of_an_sdk_holds_the_lock(file: Path) -> None:
    assert not imports_of_an_sdk(ast.parse(file.read_text()))


def test_an_import_without_the_lock_is_found() -> None:
    source = "def f():\n    import requests\n    with sdk_imports:\n        import boto3\n"

    assert imports_of_an_sdk(ast.parse(source)) == {2}
