"""The house rules that a linter does not know: floors, and what importing tfprune may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tfprune

PACKAGE = Path(tfprune.__file__).parent
FLOORS = {
    "criteria": 1,
    "granularity": 1,
    "distributions": 1,
    "growth": 1,
    "schedules": 1,
    "shrinkage": 1,
    "files": 1,
    "checks": 1,
    "tables": 1,
    "sparse_tensors": 1,
    "tflite_file": 1,
    "graph": 2,
    "kernels": 2,
    "masking": 2,
    "training_step": 2,
    "selection": 2,
    "structures": 2,
    "runtime": 2,
    "editing": 2,
    "cloning": 2,
    "layers": 2,
    "channel_costs": 2,
    "gammas": 2,
    "input_selection": 2,
    "vanishing": 2,
    "callbacks": 3,
    "shrink": 3,
    "scaling": 3,
    "folding": 3,
    "prune_channels": 3,
    "widen": 3,
    "recalibration": 3,
    "export": 3,
    "report": 3,
    "html_report": 3,
    "quantize": 3,
    "compression": 3,
}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(dotted: str) -> str:
    return dotted.split(".")[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_imports_only_from_its_floor_or_below(path: Path) -> None:
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    assert own in FLOORS, f"{own} has no floor: add it to FLOORS and to docs/architecture.md"
    imported = [
        node.module
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tfprune.")
    ]
    too_high = [name for name in imported if FLOORS[room(name)] > FLOORS[own]]
    assert not too_high


def test_every_floor_is_documented() -> None:
    text = (PACKAGE.parent / "docs/architecture.md").read_text()
    assert [name for name in FLOORS if name not in text] == []


def test_import_loads_nothing_optional() -> None:
    # What TensorFlow and Keras load for themselves, where it happens to be installed, is not ours.
    code = (
        "import sys, tensorflow, keras, rich, ai_edge_litert.interpreter; before = set(sys.modules); import tfprune; "
        "print(sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    optional = {"matplotlib", "tensorflow_model_optimization", "tf_keras", "mlxtend", "scipy", "pandas", "sklearn"}
    optional |= {"ai_edge_quantizer", "mediapipe", "jinja2"}
    loaded = set(ast.literal_eval(found.stdout))
    assert "tfprune" in loaded
    assert not loaded & optional
