"""The import rules and naming rules as functions over a source tree, so that the tests can try them on broken trees.

A module is named by its dotted path below the package (`wire._span`; `""` is the package itself). Lazy imports count;
imports under `if TYPE_CHECKING:` do not: they never run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["forbidden_names", "imports_of", "modules_of", "rule_breaks", "unmapped", "unproved_exports"]

PACKAGE = "asynctrace"
BASE = {"_contracts", "_errors", "_diagnostics", "_tree"}
"""What every stage may import; among themselves only `_contracts` → `_errors` and `_tree` → both."""

MAY_IMPORT: dict[str, set[str]] = {
    "_errors": set(),
    "_contracts": {"_errors"},
    "_diagnostics": set(),
    "_tree": {"_contracts", "_errors"},
    "wire": {"_contracts", "_errors"},
    "propagation": {"_contracts", "_errors"},
    "tracing": {"_contracts", "_errors", "_diagnostics", "wire", "propagation"},
    "spanlog": {"_contracts", "_errors", "wire"},
    "delivery": {"_contracts", "_errors", "_diagnostics", "wire", "spanlog"},
    "exporters": {"_contracts", "_errors", "_tree", "wire", "stream"},
    "stream": {"_contracts", "_errors", "_diagnostics", "wire"},
    "runtime": {*BASE, "wire", "propagation", "tracing", "spanlog", "delivery", "exporters"},
    "middleware": {*BASE, "propagation", "tracing", "runtime"},
    "opentelemetry": {*BASE, "wire", "propagation", "tracing", "runtime"},
    "testing": {*BASE, "wire", "propagation", "tracing", "spanlog", "delivery", "exporters", "runtime"},
    "collector": {*BASE, "wire", "propagation", "tracing", "exporters", "runtime", "stream"},
    "_terminal": {"_contracts", "_tree"},
    "_journal_command": {*BASE, "_terminal", "wire", "spanlog", "delivery", "exporters", "runtime"},
    "_dead_letter_command": {*BASE, "_terminal", "wire", "delivery", "exporters", "runtime"},
    "_collector_source": {*BASE, "collector"},
    "_collector_commands": {*BASE, "_terminal", "_collector_source", "collector"},
    "_top_command": {"_terminal", "_collector_commands", "collector"},
    "_quantities": set(),
    "_serve_command": {*BASE, "_terminal", "_quantities", "_collector_commands", "collector"},
    "_fleet_settings": {*BASE, "_quantities"},
    "_fleet_commands": {*BASE, "_terminal", "_fleet_settings", "collector", "stream"},
    "cli": {
        *BASE,
        "_terminal",
        "_collector_commands",
        "_serve_command",
        "_top_command",
        "_fleet_commands",
        "_journal_command",
        "_dead_letter_command",
        "wire",
        "collector",
        "_demo",
    },
    "_demo": {*BASE, "wire", "tracing", "collector", "exporters", "runtime"},
    "processes": {*BASE, "wire", "propagation", "tracing", "delivery", "runtime", "spanlog"},
    "": {*BASE, "propagation", "tracing", "spanlog", "delivery", "runtime"},
}
"""The map: each part of the package, and which other parts it may import. A part that is not here breaks the rules."""

EVENT_LOOPS = {"asyncio", "anyio", "aiohttp", "trio", "uvloop"}
OUTSIDE = {"atexit", "signal", "random", "secrets", "time", "socket", "uuid"}
"""Clocks, randomness, exit, signals, the network: seams. `os` is allowed, `os.environ` is not."""
LATE = {"aiohttp", "httpx", "structlog", "redis", "zstandard", "clickhouse_connect", "opentelemetry"}
"""Never loaded with `import asynctrace`: imported inside functions, or in modules that are loaded so."""

FORBIDDEN_EXTERNAL: dict[str, set[str]] = {
    "wire": EVENT_LOOPS | OUTSIDE | LATE,
    "propagation": EVENT_LOOPS | OUTSIDE | LATE | {"contextvars"},
    "tracing": EVENT_LOOPS | OUTSIDE | LATE,
    "spanlog": (EVENT_LOOPS - {"asyncio"}) | OUTSIDE | LATE,
    "delivery": (EVENT_LOOPS - {"asyncio"}) | OUTSIDE | LATE,
    "exporters": {"atexit", "signal", "random", "secrets", "uuid"},
    "_contracts": EVENT_LOOPS | OUTSIDE | LATE,
    "_tree": EVENT_LOOPS | OUTSIDE | LATE,
}
READS_THE_ENVIRONMENT = {
    "runtime",
    "cli",
    "_collector_commands",
    "_fleet_settings",
    "_demo",
    "_terminal",
    "_journal_command",
    "_dead_letter_command",
}
"""`collector` and `testing` are programs of their own, but they take what they need as arguments."""

FORBIDDEN_WORDS = {"manager", "helper", "util", "utils", "data", "info"}
FORBIDDEN_STARTS = ("do_", "perform_")
ALLOWED_NAMES = {"info", "exc_info"}
"""`Diagnostics.info` is structlog's word for its level; `exc_info` Python's for the three of `__exit__`."""

_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def modules_of(source: Path) -> dict[str, Path]:
    """Every module of the package that lies in `source`, by its name below the package."""
    root = source / PACKAGE
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(name: str, path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything a module imports; modules of the package as `asynctrace.…`, façade use as
    `import asynctrace`."""
    is_package = path.name == "__init__.py"
    for node in _executed(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, f"import {alias.name}") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, f"import {node.module}"
        elif isinstance(node, ast.ImportFrom):
            here = name.split(".") if name else []
            above = here[: len(here) + is_package - node.level] if node.level > is_package else here
            base = [*above, *(node.module or "").split(".")] if node.module else above
            for alias in node.names:
                yield node.lineno, ".".join([PACKAGE, *base, *([] if node.module else [alias.name])])


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module but those under `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from _executed(child)


def rule_breaks(source: Path) -> list[str]:
    """Every break of an import rule, as `module:line: what`."""
    breaks = []
    for name, path in modules_of(source).items():
        part = name.partition(".")[0]
        if part not in MAY_IMPORT:
            breaks.append(f"{name}:0: is not on the map")
            continue
        breaks += [
            f"{name}:{line}: {wrong}" for line, wanted in imports_of(name, path) if (wrong := _judge(part, wanted))
        ]
        if part not in READS_THE_ENVIRONMENT:
            breaks += [f"{name}:{line}: reads os.environ" for line in _environment_uses(path)]
        breaks += [f"{name}:{line}: loads with the package" for line in _early_imports(part, name, path)]
        breaks += [f"{name}:{line}: {wrong}" for line, wrong in _test_only_lines(part, path)]
    return breaks


def _judge(part: str, wanted: str) -> str:
    """What is wrong with this import in this part of the package, or nothing."""
    if wanted.startswith("import "):
        external = wanted.removeprefix("import ").partition(".")[0]
        if external == PACKAGE:
            return "imports the façade"
        return f"imports {external}" if external in FORBIDDEN_EXTERNAL.get(part, ()) else ""
    target = wanted.split(".")[1] if "." in wanted else ""
    if target == part or target in MAY_IMPORT[part]:
        return ""
    return f"imports {target or 'the façade'}"


def _environment_uses(path: Path) -> Iterator[int]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv")) or (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and {"environ", "getenv"} & {a.name for a in node.names}
        ):
            yield node.lineno


def _test_only_lines(part: str, path: Path) -> Iterator[tuple[int, str]]:
    """Lines that ask whether a test is running, and assertions, which `python -O` takes away."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assert):
            yield node.lineno, "asserts"
        elif isinstance(node, ast.Constant) and part != "testing" and str(node.value).startswith(("pytest", "PYTEST_")):
            yield node.lineno, "asks for tests"


def _early_imports(part: str, name: str, path: Path) -> Iterator[int]:
    """Imports of late libraries at the top of a module that `import asynctrace` loads. Exporters and doors load by name."""
    if part in ("collector", "cli", "testing", "_demo", "opentelemetry"):
        return
    if part in ("exporters", "middleware") and name != part:
        return
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None) or ""]
        if isinstance(node, ast.Import | ast.ImportFrom) and {n.partition(".")[0] for n in names} & LATE:
            yield node.lineno


def unproved_exports(source: Path) -> list[str]:
    """Modules whose `__all__` is not what they define or hand on under public names."""
    wrong = []
    for name, path in modules_of(source).items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        listed = _listed(tree)
        if listed is None:
            if _defined(tree) or (path.name == "__init__.py" and tree.body):
                wrong.append(f"{name}: has no __all__")
            continue
        public = _handed_on(tree) if path.name == "__init__.py" else _defined(tree)
        known = public | _assigned(tree) | _handed_on(tree)
        wrong += [f"{name}: {missing} is public and not in __all__" for missing in sorted(public - listed)]
        wrong += [f"{name}: {extra} is in __all__ and not there" for extra in sorted(listed - known)]
    return wrong


def _listed(tree: ast.Module) -> set[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return None


def _defined(tree: ast.Module) -> set[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")}


def _assigned(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            names |= {leaf.id for leaf in ast.walk(target) if isinstance(leaf, ast.Name)}
    return names


def _handed_on(tree: ast.Module) -> set[str]:
    """Names imported from the package itself, `if TYPE_CHECKING:` included: there stand what loads by name. A folder that is
    imported whole is no name of its own."""
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level and node.module and node.col_offset <= 4
        for alias in node.names
        if not (alias.asname or alias.name).startswith("_") or (alias.asname or "").startswith("__")
    }


def forbidden_names(source: Path) -> list[str]:
    """Definitions, arguments and variables whose names use words that say nothing."""
    wrong = []
    for name, path in modules_of(source).items():
        for line, identifier in _identifiers(ast.parse(path.read_text(encoding="utf-8"))):
            words = {word.lower() for word in _WORDS.findall(identifier)}
            plain = identifier.lstrip("_")
            if plain not in ALLOWED_NAMES and (words & FORBIDDEN_WORDS or plain.startswith(FORBIDDEN_STARTS)):
                wrong.append(f"{name}:{line}: {identifier}")
        if {word for part in name.split(".") for word in part.split("_")} & FORBIDDEN_WORDS:
            wrong.append(f"{name}:0: the module's own name")
    return wrong


def _identifiers(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def unmapped(source: Path, page: str) -> list[str]:
    """Folders and modules of the package that the text of ARCHITECTURE.md does not name."""
    missing = []
    for name, path in modules_of(source).items():
        if not name:
            continue
        shown = f"{name.replace('.', '/')}/" if path.name == "__init__.py" else path.name
        if not re.search(rf"(?<![\w/]){re.escape(shown)}", page):
            missing.append(shown)
    return missing
