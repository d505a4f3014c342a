"""What a user may import: the top level, and the rooms of its vocabulary."""

import importlib
from types import ModuleType

import tfprune

ROOMS = ("callbacks", "criteria", "data", "decomposition", "graph", "layers", "statistics", "tickets")
FILES = ("distributions", "files", "granularity", "growth", "masking", "runtime", "schedules")


def public_names(module: ModuleType) -> set[str]:
    """The names of a module that are for users: those of `__all__`, or else all that it defines."""
    if hasattr(module, "__all__"):
        return set(module.__all__)
    return {name for name, item in vars(module).items() if name[0] != "_" and _home(item) == module.__name__}


def _home(item: object) -> str:
    return getattr(item, "__module__", None) or ""


PUBLIC = {"tfprune": public_names(tfprune) | {"__version__", *ROOMS, *FILES}}
PUBLIC |= {f"tfprune.{name}": public_names(importlib.import_module(f"tfprune.{name}")) for name in (*ROOMS, *FILES)}
