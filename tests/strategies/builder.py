"""Grows a functional model step by step; every choice is drawn."""

import keras
from hypothesis import strategies as st

L = keras.layers

STILL = [None, None, "relu", "tanh", "elu", "silu", "leaky_relu"]
"""Activations that map zero to zero."""
WAKING = ["sigmoid", "softplus", "hard_sigmoid"]
"""Activations that make a masked channel a constant."""


class Builder:
    """The tensors of a model that grows, and what its steps have in common.

    A tensor is *awake* if its masked channels may carry a constant. Folding it into a zero-padded convolution is not
    exact, so unless `pad_constants`, layers that pad see only tensors that are not awake.
    """

    def __init__(self, draw, inputs, awake=(), depth=0, pad_constants=False, extreme=False):
        self.draw, self.depth, self.pad_constants, self.extreme = draw, depth, pad_constants, extreme
        self.inputs = list(inputs)
        self.tensors = list(inputs)
        self.unread = list(inputs)
        self.awake = {id(tensor) for tensor, flag in zip(inputs, awake or [False] * len(inputs), strict=True) if flag}
        self.shared = []

    def pick(self, options):
        return self.draw(st.sampled_from(options))

    def chance(self, one_in=2):
        return self.draw(st.integers(1, one_in)) == 1

    def width(self):
        return self.pick([1, 2, 3, 4, 4, 6, 8])

    def activation(self):
        return self.pick(STILL) if self.draw(st.integers(0, 3)) else self.pick(WAKING)

    def padding(self, x, kernel_size):
        """'same' where nothing is padded or all that is masked is zero; else 'valid' where the kernel fits."""
        if self.may_pad(x) and (self.chance() or min(x.shape[1:-1]) < kernel_size):
            return "same"
        return "valid"

    def may_pad(self, x):
        return self.pad_constants or id(x) not in self.awake

    def kernel_size(self, x, sizes=(1, 2, 3)):
        fitting = [size for size in sizes if self.may_pad(x) or size <= min(x.shape[1:-1])]
        return self.pick(fitting or [1])

    def note(self, y, *sources, wakes=False):
        """Remember a tensor that a layer made; it is awake if a source is (pass none where a kernel makes it new)."""
        if wakes or any(id(source) in self.awake for source in sources):
            self.awake.add(id(y))
        return y

    def through(self, layer, *sources, wakes=False):
        """Call a layer that passes channels on."""
        return self.note(layer(*sources), *sources, wakes=wakes)

    def make(self, layer, x):
        """Call a layer that makes new channels; an earlier one that fits is called again now and then."""
        fitting = [known for known, shape in self.shared if shape == x.shape and type(known) is type(layer)]
        if fitting and self.chance(4):
            layer = self.pick(fitting)
        elif not isinstance(layer, (L.LSTM, L.GRU, L.SimpleRNN)):
            self.shared.append((layer, x.shape))
        activation = getattr(layer, "activation", None)
        return self.note(layer(x), wakes=getattr(activation, "__name__", None) in WAKING)

    def source(self, rank):
        """An earlier tensor of this rank (without the batch), more often one that nothing reads yet; or None."""
        fresh = [tensor for tensor in self.unread if len(tensor.shape) - 1 == rank]
        known = [tensor for tensor in self.tensors if len(tensor.shape) - 1 == rank]
        if not known:
            return None
        return self.read(self.pick(fresh if fresh and self.draw(st.integers(0, 3)) else known))

    def partner(self, x, same_width=True):
        """Another tensor of the same spatial size, if there is one."""
        end = len(x.shape) if same_width else -1
        return self.read(
            self.pick([y for y in self.tensors if y.shape[1:end] == x.shape[1:end] and len(y.shape) == len(x.shape)])
        )

    def read(self, x):
        self.unread = [tensor for tensor in self.unread if tensor is not x]
        return x

    def add(self, made):
        for tensor in made if isinstance(made, list) else [made]:
            if not any(tensor is known for known in self.tensors):
                self.tensors.append(tensor)
                self.unread.append(tensor)
