"""All forms in which the same 20 samples can be given, and what each of them must come out as."""

import itertools

import keras
import numpy as np
import tensorflow as tf

N, BATCH = 20, 8  # the last batch is shorter
_random = np.random.default_rng(0)
A = _random.normal(size=(N, 3)).astype("float32")
B = _random.normal(size=(N, 2)).astype("float32")
Y = np.arange(N) % 4
W = np.ones(N)
SLICES = [slice(start, start + BATCH) for start in range(0, N, BATCH)]


class Batches(keras.utils.PyDataset):
    """Batches by index, with the parts of a batch in whatever it is told to make of them."""

    def __init__(self, make, **options):
        super().__init__(**options)
        self.make, self.epochs = make, []

    def __len__(self):
        return len(SLICES)

    def __getitem__(self, index):
        return self.make(SLICES[index])

    def on_epoch_begin(self):
        self.epochs.append("begin")

    def on_epoch_end(self):
        self.epochs.append("end")


class Endless(Batches):
    @property
    def num_batches(self):
        return None


def one_input():
    """Three numbers in, four out; the largest one depends on all of the input."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((3,), name="a")
    hidden = keras.layers.BatchNormalization(name="bn")(keras.layers.Dense(5, name="dense")(inputs))
    return keras.Model(inputs, keras.layers.Dense(4, name="classes")(hidden), name="one")


def two_inputs(structure=list):
    """The same with two inputs, which the model takes as a list or as a dict."""
    keras.utils.set_random_seed(2)
    b, a = keras.Input((2,), name="b"), keras.Input((3,), name="a")
    joined = keras.layers.Dense(5, name="dense")(keras.layers.Concatenate()([b, a]))
    hidden = keras.layers.BatchNormalization(name="bn")(joined)
    inputs = [b, a] if structure is list else {"b": b, "a": a}
    return keras.Model(inputs, keras.layers.Dense(4, name="classes")(hidden), name="two")


def _dataset(*parts):
    return tf.data.Dataset.from_tensor_slices(parts if len(parts) > 1 else parts[0]).batch(BATCH)


ONE_LABELLED = {
    "(x, y)": lambda: (A, Y),
    "(x, y, w)": lambda: (A, Y, W),
    "(x, y) in float64": lambda: (A.astype("float64"), Y.astype("float64")),
    "(x, y) of tensors": lambda: (tf.constant(A), tf.constant(Y)),
    "(x, y) of lists of numbers": lambda: (A.tolist(), Y.tolist()),
    "(x, y) with an axis more": lambda: (A[..., None], Y),
    "(x, [y])": lambda: (A, [Y]),
    "([x], y)": lambda: ([A], Y),
    "({name: x}, y)": lambda: ({"a": A}, Y),
    "({name: x, more}, y)": lambda: ({"a": A, "id": np.arange(N)}, Y),
    "dataset": lambda: _dataset(A, Y),
    "dataset with weights": lambda: _dataset(A, Y, W),
    "dataset of dicts": lambda: _dataset({"a": A}, Y),
    "dataset of unknown length": lambda: _dataset(A, Y).filter(lambda x, y: True),
    "PyDataset": lambda: Batches(lambda rows: (A[rows], Y[rows])),
    "PyDataset with workers": lambda: Batches(lambda rows: (A[rows], Y[rows]), workers=2, use_multiprocessing=True),
    "PyDataset of lists": lambda: Batches(lambda rows: [A[rows], Y[rows]]),
    "generator": lambda: ((A[rows], Y[rows]) for rows in SLICES),
    "generator of lists": lambda: ([A[rows], Y[rows]] for rows in SLICES),
    "list of batches": lambda: [(A[rows], Y[rows]) for rows in SLICES],
    "iterator": lambda: iter([(A[rows], Y[rows], W[rows]) for rows in SLICES]),
}
TWO_LABELLED = {
    "([b, a], y)": lambda: ([B, A], Y),
    "((b, a), y)": lambda: ((B, A), Y),
    "([b, a], y, w)": lambda: ([B, A], Y, W),
    "({name: x}, y)": lambda: ({"a": A, "b": B}, Y),
    "dataset of tuples": lambda: _dataset((B, A), Y),
    "dataset of dicts": lambda: _dataset({"a": A, "b": B}, Y),
    "dataset with weights": lambda: _dataset((B, A), Y, W),
    "PyDataset": lambda: Batches(lambda rows: ((B[rows], A[rows]), Y[rows])),
    "PyDataset of lists": lambda: Batches(lambda rows: [(B[rows], A[rows]), Y[rows]]),
    "generator": lambda: (({"a": A[rows], "b": B[rows]}, Y[rows]) for rows in SLICES),
    "generator of lists": lambda: ([[B[rows], A[rows]], Y[rows]] for rows in SLICES),
    "list of batches": lambda: [((B[rows], A[rows]), Y[rows]) for rows in SLICES],
}
ONE_INPUTS = {
    "x": lambda: A,
    "x as tensor": lambda: tf.Variable(A),
    "x as lists of numbers": lambda: A.tolist(),
    "(x,)": lambda: (A,),
    "[x]": lambda: [A],
    "{name: x}": lambda: {"a": A},
    "dataset of x": lambda: _dataset(A),
    "PyDataset of x": lambda: Batches(lambda rows: A[rows]),
    "PyDataset of (x,)": lambda: Batches(lambda rows: (A[rows],)),
    "list of x": lambda: [A[rows] for rows in SLICES],
    "generator of [x]": lambda: ([A[rows]] for rows in SLICES),
}
TWO_INPUTS = {
    "[b, a]": lambda: [B, A],
    "(b, a)": lambda: (B, A),
    "((b, a),)": lambda: ((B, A),),
    "{name: x}": lambda: {"a": A, "b": B},
    "dataset of (b, a)": lambda: _dataset(B, A),
    "dataset of dicts": lambda: _dataset({"b": B, "a": A}),
    "PyDataset of [b, a]": lambda: Batches(lambda rows: [B[rows], A[rows]]),
    "generator of (b, a)": lambda: ((B[rows], A[rows]) for rows in SLICES),
    "list of lists": lambda: [[B[rows], A[rows]] for rows in SLICES],
}
BY_NAME = ("({name: x}, y)", "{name: x}", "dataset of dicts", "generator")
LABELLED = {
    **{("one", name): form for name, form in ONE_LABELLED.items()},
    **{("two", name): form for name, form in TWO_LABELLED.items()},
    **{("two as dict", name): form for name, form in TWO_LABELLED.items() if name in BY_NAME},
}
INPUTS = {
    **{("one", name): form for name, form in ONE_INPUTS.items()},
    **{("two", name): form for name, form in TWO_INPUTS.items()},
    **{("two as dict", name): form for name, form in TWO_INPUTS.items() if name in BY_NAME},
}
MODELS = {"one": one_input, "two": two_inputs, "two as dict": lambda: two_inputs(dict)}

NAN = np.where(np.arange(3 * N).reshape(N, 3) == 10, np.nan, A)
UNBATCHED = r"expected arrays of shape \(samples, 3\) for input 'a'\. Received: \(3,\)\. Batch the dataset"
WRONG = {
    "unbatched dataset": (lambda: tf.data.Dataset.from_tensor_slices((A, Y)), ValueError, UNBATCHED),
    "wrong shape": (lambda: (A[:, :2], Y), ValueError, r"does not fit 'one': expected .*Received: \(20, 2\)\.$"),
    "wrong shape in a dataset": (lambda: _dataset(A[:, :2], Y), ValueError, r"does not fit 'one'.*Received: \(8, 2\)"),
    "wrong name": (lambda: ({"b": A}, Y), ValueError, r"'one' has the inputs \['a'\].*Received: \['b'\]"),
    "too many inputs": (lambda: ([A, B], Y), ValueError, r"'one' has the inputs \['a'\].*Received: list of 2"),
    "four parts": (lambda: (A, Y, W, W), ValueError, r"as for fit\. Received: a tuple of 4 parts"),
    "strings": (lambda: (A.astype(str), Y), ValueError, r"input 'a' is float32\. Received: <U"),
    "NaN": (lambda: (NAN, Y), ValueError, "holds NaN or infinite values: input 'a'"),
    "infinity": (lambda: (np.full_like(A, np.inf), Y), ValueError, "holds NaN or infinite values: input 'a'"),
    "weights of NaN": (lambda: (A, Y, W * np.nan), ValueError, "holds NaN or infinite values: sample_weight"),
    "NaN in a dataset": (lambda: _dataset(NAN.astype("float32"), Y), ValueError, "holds NaN or infinite values"),
    "no samples": (lambda: (A[:0], Y[:0]), ValueError, "has no samples"),
    "fewer labels": (lambda: (A, Y[:7]), ValueError, r"differ in their number of samples: \{'x': 20, 'y': 7\}"),
    "fewer weights": (lambda: (A, Y, W[:7]), ValueError, r"\{'x': 20, 'y': 20, 'sample_weight': 7\}"),
    "a number as label": (lambda: (A, 3), ValueError, "y is a single number"),
    "a dataset with labels beside it": (lambda: (_dataset(A), Y), TypeError, "Received: _BatchDataset.*given alone"),
    "ragged": (lambda: (tf.ragged.constant([[1.0]] * N), Y), ValueError, r"RaggedTensor.*value\.to_tensor\(\)"),
    "a path": (lambda: "data.npz", TypeError, r"is the path 'data\.npz'.*np\.load"),
    "a number": (lambda: 3, TypeError, r"Received: int\."),
}
"""Data that fits no use of a model with one input, the error, and what it says."""

ENDLESS = {
    "dataset": lambda: _dataset(A, Y).repeat(),
    "PyDataset": lambda: Endless(lambda rows: (A[rows], Y[rows])),
}
LAZY = {
    "generator": lambda: ((A[rows], Y[rows]) for rows in SLICES),
    "iterator": lambda: iter([(A[rows], Y[rows]) for rows in SLICES]),
    "chain": lambda: itertools.chain([(A, Y)]),
}
