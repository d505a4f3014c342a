"""Package metadata and extras. Build-system and tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "tfprune/__init__.py").read_text(), re.M)[1]

RECIPES = ["mlxtend==0.25.0"]
PLOT = ["matplotlib>=3.8"]
REPORT = [*PLOT, "jinja2>=3.1"]
CLUSTERING = ["scikit-learn>=1.4"]
WEIGHT_ONLY = ["ai-edge-quantizer>=0.5"]
TEST = [
    *RECIPES,
    *WEIGHT_ONLY,
    *REPORT,
    "tensorboard>=2.19",
    "pytest>=8",
    "pytest-xdist>=3",
    "hypothesis>=6.100",
    "scipy>=1.11",
    *CLUSTERING,
    "tensorly>=0.9",
    "build>=1.2",
    "setuptools>=77",
    "ruff>=0.8",
    "mypy>=1.13",
]

setup(
    name="tfprune",
    version=VERSION,
    description="Prune Keras 3 models during fit, shrink them, and ship a checked int8 .tflite",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The tfprune authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["tfprune", "tfprune.*", "tfprune_cli"]),
    package_data={"tfprune": ["py.typed"], "tfprune.html_report": ["page.html"]},
    install_requires=[
        "tensorflow>=2.19",
        "keras>=3.12",
        "numpy>=1.26",
        "ai-edge-litert>=1.2",
        "rich>=13.7",
    ],
    entry_points={"console_scripts": ["tfprune = tfprune_cli:main"]},
    extras_require={
        "plot": PLOT,
        "report": REPORT,
        "recipes": [*RECIPES, *PLOT],
        "weight-only": WEIGHT_ONLY,
        "clustering": CLUSTERING,
        "test": TEST,
        "benchmarks": [
            *RECIPES,
            *PLOT,
            "scipy>=1.11",
            "tensorflow-model-optimization>=0.8",
            "tf_keras>=2.18",
        ],
        "docs": ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.26", "ruff>=0.8"],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
