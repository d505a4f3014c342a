"""What tells data from other data, in a few characters, for the settings of a run."""

from typing import Any

import keras
import numpy as np

from tfprune.data.fingerprints import digest
from tfprune.drivers.batches import num_batches


def data_fingerprint(data: Any) -> dict[str, Any]:
    """Return what tells data from others: of arrays all, of datasets their form and length.

    Args:
        data: Arrays in a tuple, a `tf.data.Dataset` or a `keras.utils.PyDataset`.

    Returns:
        Plain values.
    """
    if isinstance(data, tuple):
        arrays = [np.asarray(array) for array in keras.tree.flatten(data)]
        return {"samples": len(arrays[0]), "sha256": digest(arrays)}
    return {"batches": num_batches(data, 1), "form": str(getattr(data, "element_spec", type(data).__name__))}
