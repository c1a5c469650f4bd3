"""Reads from the source, by `ast`, what each module of the package imports; nothing is run."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Import:
    """One name that a module imports, both without the leading "torch_stn." where they are ours."""

    module: str  # "" is torch_stn/__init__.py
    target: str  # "sampling.choose.reasons", "torch_stn" (the face as a whole); or "torch.nn" from outside
    ours: bool
    early: bool  # runs when the module is imported: not in a function, not under TYPE_CHECKING
    where: str


def modules(root: Path) -> dict[str, Path]:
    """Every module under root/torch_stn by its name below the package."""
    paths = sorted((root / "torch_stn").rglob("*.py"))
    relative = [path.relative_to(root / "torch_stn").with_suffix("").parts for path in paths]
    return {
        ".".join(parts[:-1] if parts[-1] == "__init__" else parts): p for parts, p in zip(relative, paths, strict=True)
    }


def nodes(node: ast.AST, early: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    """All nodes below, each with whether it runs when the module is imported."""
    for field, value in ast.iter_fields(node):
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and field == "body"
        typing_only = isinstance(node, ast.If) and field == "body" and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child, early and not later and not typing_only
                yield from nodes(child, early and not later and not typing_only)


def named(node: ast.AST, package: str) -> list[str]:
    """The absolute dotted names that one statement or call imports."""
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=base, names=names, level=level):
            up = package.split(".")[: len(package.split(".")) - level + 1] if level else []
            return [".".join([*up, *([base] if base else []), alias.name]) for alias in names]
        case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), args=[ast.Constant(value=str(name)), *_]):
            return [name] if called in ("import_module", "__import__") else []
    return []


def imports(root: Path) -> list[Import]:
    """Every import of the package; a name taken from the face ("torch_stn.Affine") is followed to its home."""
    paths, found, homes = modules(root), [], {}
    for module, path in paths.items():  # the face is the first
        full = f"torch_stn.{module}".rstrip(".")
        package = full if path.name == "__init__.py" else full.rpartition(".")[0]
        for node, early in nodes(ast.parse(path.read_text(), str(path))):
            for name in named(node, package):
                ours = name.split(".")[0] == "torch_stn"
                target = name.removeprefix("torch_stn.") if ours else name
                if ours and module == "":
                    homes[target.rpartition(".")[2]] = target
                elif ours and target not in paths:
                    target = homes.get(target, target)
                where = f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}"
                found.append(Import(module, target, ours, early, where))
    return found
