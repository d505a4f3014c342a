"""Products of two tensors summed over axes: matmul, einsum, Dot; attention written with `keras.ops`."""

import string

import keras
import numpy as np

from tfprune.graph.record import Call
from tfprune.graph.rules.channel_axes import varying_axes
from tfprune.graph.rules.registry import rule


@rule("Matmul")
def _matmul(call: Call) -> np.ndarray | list[np.ndarray]:
    ranks = [len(shape) + 1 for shape in call.input_shapes]
    if len(ranks) != 2 or ranks[0] != ranks[1] or ranks[0] < 3:
        return call.give_up(f"{call.layer.name!r} multiplies tensors in a way that is not followed")
    batch = string.ascii_uppercase[: ranks[0] - 2]
    return contract(call, [f"{batch}ik", f"{batch}kj"], f"{batch}ij")


@rule("Einsum")
def _einsum(call: Call) -> np.ndarray | list[np.ndarray]:
    left, arrow, out = call.layer.subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    ranks = [len(shape) + 1 for shape in call.input_shapes]
    plain = len(terms) == len(call.inputs) == 2 and [len(term) for term in terms] == ranks
    if not arrow or not plain or not all(len({*term}) == len(term) for term in (*terms, out)):
        return call.give_up(f"{call.layer.name!r} multiplies tensors in a way that is not followed")
    return contract(call, terms, out)


@rule(keras.layers.Dot)
def _dot(call: Call) -> np.ndarray | list[np.ndarray]:
    layer = call.layer
    ranks = [len(shape) + 1 for shape in call.input_shapes]
    axes = [layer.axes] * 2 if isinstance(layer.axes, int) else list(layer.axes)
    if min(ranks) < 2 or any(axis % rank == 0 for axis, rank in zip(axes, ranks, strict=True)):
        return call.give_up(f"{layer.name!r} sums over the batch")
    terms = [list("B" + string.ascii_lowercase[: ranks[0] - 1]), list("B" + string.ascii_uppercase[5 : 4 + ranks[1]])]
    for term, axis in zip(terms, axes, strict=True):
        term[axis] = "k"
    out = ["B", *(letter for term in terms for letter in term[1:] if letter != "k")]
    if "k" in string.ascii_lowercase[: ranks[0] - 1]:
        return call.give_up(f"{layer.name!r} has too many axes")
    if layer.normalize:  # by the length along the axis, which zeros do not change; constants would
        for channels in call.inputs:
            call.read(channels)
    return contract(call, ["".join(term) for term in terms], "".join(out))


def contract(call: Call, terms: list[str], out: str) -> np.ndarray | list[np.ndarray]:
    """Follow channels through a sum of products, written as in einsum with the batch in front.

    Channels that are summed over are tied in both tensors; a pair of which one is zero adds nothing. Channels of
    one tensor that stay are scaled by the other, which must carry no channels of its own to the output.
    """
    name = call.layer.name
    along = [[term[axis] for axis in varying_axes(ch)] for term, ch in zip(terms, call.inputs, strict=True)]
    if any(len(letters) > 1 for letters in along) or out[:1] != terms[0][:1] or out[0] != terms[1][0]:
        return call.give_up(f"{name!r} multiplies tensors in a way that is not followed")
    call.is_product = True
    letters = {letter for each in along for letter in each}
    if not letters:
        return call.give_up(f"{name!r} multiplies tensors whose channels are not followed")
    if len(letters & {*out}) > 1:
        return call.give_up(f"{name!r} pairs every channel with every other")
    summed = letters - {*out}
    if len(summed) > 1 or (summed and not summed <= {*terms[0]} & {*terms[1]}):
        return call.give_up(f"{name!r} sums over channels in a way that is not followed")
    rows = [channels.ravel() for channels in call.inputs]
    for letter in letters:
        _meet(call, terms, along, letter)
        if letter in summed:
            for row in rows:
                call.read(row)
    stays = letters & {*out}
    if not stays:
        return call.opaque(f"sum over channels in {name!r}")
    letter = stays.pop()
    made = next(row for row, each in zip(rows, along, strict=True) if letter in each)
    shape = [1] * len(out)
    shape[out.index(letter)] = -1
    return made.reshape(shape)[0]


def _meet(call: Call, terms: list[str], along: list[list[str]], letter: str) -> None:
    """Tie or freeze what meets along one axis."""
    both = all(letter in term for term in terms)
    rows = [channels.ravel() for channels in call.inputs]
    alike = all(each in ([], [letter]) for each in along)
    if both and alike:
        call.tie(rows[0], rows[1])
    for index, row in enumerate(rows):
        if both and not alike and along[index] == [letter]:
            call.freeze(row, f"{call.layer.name!r} lines it up with something else than channels")
        if not both and not along[index]:
            call.freeze(row, f"{call.layer.name!r} multiplies all channels by it")
