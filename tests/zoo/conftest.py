"""The zoo is what benchmarks/zoo.py checks; its folder goes on the path, as it does when that is run."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
