"""The import paths that the documentation of version 0.1 taught, and where they lead now."""

import importlib
import sys

MOVED = {
    "tfprune.callbacks.filter_pruning": "tfprune.callbacks.filters.base",
    "tfprune.callbacks.sparse_training": "tfprune.callbacks.weights.base",
    "tfprune.callbacks.sparsity_regularization": "tfprune.callbacks.penalties.base",
    "tfprune.selection": "tfprune.parts.channels",
}


def keep_old_paths() -> None:
    """Let `import` find the old names: it looks into `sys.modules` before it looks for a file."""
    sys.modules.update({old: importlib.import_module(new) for old, new in MOVED.items()})
