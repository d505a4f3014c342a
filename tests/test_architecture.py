"""The house rules that a linter does not know: which room may import from which, and what importing tfprune loads."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from public import FILES, PUBLIC, ROOMS

import tfprune
from tfprune.common.moved import MOVED

PACKAGE = Path(tfprune.__file__).parent
ROOT = PACKAGE.parent

LEVELS = [
    ["common"],
    ["granularity", "schedules", "training", "tflite"],
    ["criteria", "distributions", "files", "growth", "graph", "runtime"],
    ["rewriting", "data"],
    ["layers", "quantization", "statistics"],
    ["clustering", "parts", "reconstruction", "distillation", "tickets"],
    ["shrinking", "exporting", "masking", "weight_pruning", "stripping"],
    ["callbacks", "coding", "decomposition"],
    ["measure"],
    ["html_report", "drivers"],
]
"""The rooms, from below: each imports only from levels under its own. docs/architecture.md shows the same list."""

LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, text: str) -> Iterator[str]:
    """Every tfprune module or name that a file imports, in whichever form: the dotted path."""
    package = dotted(path) if path.name == "__init__.py" else dotted(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "tfprune")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
                base = f"{above}.{base}".rstrip(".")
            if base.split(".")[0] == "tfprune":
                yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func) and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and str(name.value).startswith("tfprune."):
                yield name.value


def wrong(path: Path, text: str) -> list[str]:
    """The imports of a file that its room may not have."""
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    assert own in LEVEL, f"{own} has no level: add it to LEVELS and to docs/architecture.md"
    found = []
    for name in imported(path, text):
        room = f"{name}.".split(".")[1]
        if room != own and LEVEL.get(room, len(LEVELS)) >= LEVEL[own]:
            found.append(name)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_imports_only_from_rooms_below(path: Path) -> None:
    # The page says which version wrote it.
    allowed = ["tfprune"] if path == PACKAGE / "html_report/page.py" else []
    assert [name for name in wrong(path, path.read_text()) if name not in allowed] == []


@pytest.mark.parametrize(
    "line",
    [
        "import tfprune",
        "import tfprune.shrinking.removal",
        "import tfprune.shrinking.removal as removal",
        "from tfprune import callbacks",
        "from tfprune.callbacks import FPGM",
        "from ..callbacks import FPGM",
        "from .. import callbacks",
        "def late():\n    from tfprune.measure import compare",
        "import importlib\nimportlib.import_module('tfprune.drivers.compression')",
    ],
)
def test_every_form_of_import_is_seen(line: str) -> None:
    assert len(wrong(PACKAGE / "graph/walk.py", line)) == 1
    assert wrong(PACKAGE / "graph/walk.py", "from ..common import checks\nfrom .record import Call") == []


def test_every_room_has_a_level() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__"} == set(LEVEL)


def test_architecture_page_shows_the_levels() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    block = re.search(r"<!-- levels -->\n```\n(.*?)```", text, re.S)[1]
    shown = [re.findall(r"[a-z_]+", line.partition(" ")[2]) for line in block.splitlines()]
    assert shown == LEVELS[::-1]


def test_no_function_of_the_face_shares_its_name_with_a_module() -> None:
    functions = {name for name in tfprune.__all__ if inspect.isroutine(getattr(tfprune, name))}
    assert {"export", "shrink", "compress"} <= functions
    names = {path.parent.name if path.name == "__init__.py" else path.stem for path in MODULES}
    assert functions & names == set()


def shown_code() -> Iterator[tuple[str, str]]:
    """All Python that is there to be read and copied: recipes, benchmarks, the README and the pages."""
    for folder in ("recipes", "benchmarks"):
        yield from ((str(path.relative_to(ROOT)), path.read_text()) for path in (ROOT / folder).glob("*.py"))
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.S)):
            yield f"{page.relative_to(ROOT)}:{number}", code


def not_public(code: str) -> list[str]:
    """What code takes from tfprune that is not for users."""
    tree, found = ast.parse(code), []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tfprune":
            found += [f"{node.module}.{each.name}" for each in node.names]
        elif isinstance(node, ast.Import):
            found += [each.name for each in node.names if each.name.startswith("tfprune.")]
        elif isinstance(node, ast.Attribute) and re.fullmatch(r"tfprune(\.\w+)+", ast.unparse(node)):
            name = ast.unparse(node).split(".")
            found.append(".".join(name[: 3 if f"{name[0]}.{name[1]}" in PUBLIC else 2]))
    ok = {f"{room}.{name}" for room, names in PUBLIC.items() for name in names} | set(PUBLIC)
    return [name for name in dict.fromkeys(found) if name not in ok and not name.endswith("__")]


@pytest.mark.parametrize(("where", "code"), [pytest.param(*each, id=each[0]) for each in shown_code()])
def test_what_people_read_imports_public_names_only(where: str, code: str) -> None:
    assert not_public(code) == []


def test_names_that_are_not_public_are_seen() -> None:
    code = "import tfprune.parts.kernels\nfrom tfprune.graph.groups import Member\ntfprune.graph.rules.find_rule"
    assert not_public(code) == ["tfprune.parts.kernels", "tfprune.graph.groups.Member", "tfprune.graph.rules"]
    assert not_public("from tfprune import shrink\nfrom tfprune.callbacks import FPGM\ntfprune.graph.rule(x)") == []


@pytest.mark.parametrize("old", MOVED)
def test_paths_of_the_old_documentation_lead_on(old: str) -> None:
    assert importlib.import_module(old) is importlib.import_module(MOVED[old])


def test_import_loads_nothing_optional() -> None:
    # What TensorFlow and Keras load for themselves, where it happens to be installed, is not ours.
    code = (
        "import sys, tensorflow, keras, rich, ai_edge_litert.interpreter; before = set(sys.modules); import tfprune; "
        "print((sorted({name.split('.')[0] for name in set(sys.modules) - before}), dir(tfprune)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    optional = {"matplotlib", "tensorflow_model_optimization", "tf_keras", "mlxtend", "scipy", "pandas", "sklearn"}
    optional |= {"ai_edge_quantizer", "mediapipe", "jinja2"}
    modules, names = ast.literal_eval(found.stdout)
    assert {*ROOMS, *FILES} <= set(names)  # tfprune.tickets.shuffled, say, needs no import of its own
    loaded = set(modules)
    assert "tfprune" in loaded
    assert not loaded & optional
