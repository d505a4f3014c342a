"""Where the tensors of a flat model become int8, and which of them share a range."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import keras

from tfprune.graph import Node, walk
from tfprune.quantization.aware_layers import Range
from tfprune.quantization.int8_rules import Kind, Rule, rule_of

Reader = Node | None
"""A call that reads a tensor; `None` where the tensor leaves the model."""

_PASSES = (Kind.NOTHING, Kind.MOVE)
_KEEPS = (Kind.MOVE, Kind.AVERAGE, Kind.RECTIFIER)
"""A ReLU of its own keeps the range as well: another one would round numbers that are rounded already."""


@dataclass(frozen=True)
class Site:
    """A place at which numbers are rounded.

    Attributes:
        group: Sites of the same group share a range.
        number: Which site of its group it is.
        range: A range known beforehand, or `None`.
        rounds: Whether the model rounds there; else only a file whose inputs and outputs are integers does.
    """

    group: int
    number: int = 0
    range: Range | None = None
    rounds: bool = True


@dataclass
class Operators:
    """The calls of a flat model, and what the int8 operators make of them.

    Attributes:
        nodes: The calls, each after those that it depends on.
        rules: What becomes of each call.
        readers: For each tensor (by id), the calls that read it.
        times: For each layer (by id), how often it is called.
        normalized: For kernels (by `Node.key`), the BatchNormalization that becomes part of the operator.
        rectified: For kernels (by `Node.key`), the ReLU that becomes part of the operator.
        inside: Tensors (by id) that exist only inside an operator.
    """

    nodes: list[Node]
    rules: list[Rule]
    readers: dict[int, list[Reader]] = field(default_factory=dict)
    times: Counter[int] = field(default_factory=Counter)
    normalized: dict[int, Node] = field(default_factory=dict)
    rectified: dict[int, Node] = field(default_factory=dict)
    inside: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, model: keras.Model) -> "Operators":
        """Return those of a model without nested models.

        Example:

        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.ReLU()])
        >>> len(Operators.of(model).inside)
        1
        """
        nodes = list(walk(model))
        found = cls(nodes, [rule_of(node) for node in nodes])
        found.times.update(id(node.operation) for node in nodes)
        for node in nodes:
            for tensor in node.inputs:
                found.readers.setdefault(id(tensor), []).append(node)
        for tensor in model.outputs:
            found.readers.setdefault(id(tensor), []).append(None)
        found._fuse()
        return found

    def calls(self) -> Iterator[tuple[Node, Rule]]:
        """Yield the calls and their rules."""
        return zip(self.nodes, self.rules, strict=True)

    def _fuse(self) -> None:
        rules = {node.key: rule for node, rule in self.calls()}
        for node, rule in self.calls():
            if rule.kind not in (Kind.KERNEL, Kind.AFFINE, Kind.ARITHMETIC):
                continue
            last, following = node, self._only_reader(node)
            if following and rule.kind is Kind.KERNEL and _normalizes(following, rules[following.key]):
                # One scale for all of a kernel would not stay the same when its channels are scaled.
                per_channel = all(rule.channel_axes.values())
                # Nor would one in which few values are shared hold only these.
                if per_channel or (self.times[id(node.operation)] == 1 and not rule.is_computed):
                    self.normalized[node.key] = following
                    self.inside.add(id(last.outputs[0]))
                    last, following = following, self._only_reader(following)
            if following and rules[following.key].kind is Kind.RECTIFIER:
                self.inside.add(id(last.outputs[0]))
                if rule.kind is Kind.KERNEL:
                    self.rectified[node.key] = following

    def _only_reader(self, node: Node) -> Reader:
        readers = self.readers.get(id(node.outputs[0]), [])
        return readers[0] if len(readers) == 1 else None


def _normalizes(node: Node, rule: Rule) -> bool:
    return isinstance(node.operation, keras.layers.BatchNormalization) and rule.kind is Kind.AFFINE


Place = int | tuple[int, int]
"""Where numbers may be rounded: a tensor (by id) where it is made, or an input (by number) of a call (by its key)."""

Placement = dict[Place, Site]
"""For places, the site at which their numbers are rounded."""


class _Groups:
    """Union-find over the places at which numbers may be rounded."""

    def __init__(self) -> None:
        self.parents: dict[Place, Place] = {}

    def root(self, place: Place) -> Place:
        while self.parents.setdefault(place, place) != place:
            place = self.parents[place]
        return place

    def tie(self, one: Place, other: Place) -> None:
        self.parents[self.root(one)] = self.root(other)


def place(model: keras.Model, operators: Operators) -> Placement:
    """Find where the tensors of a flat model must become int8.

    Every number that an integer operator reads or makes is rounded once, where it is made; what only moves it keeps
    its range, and tensors that are concatenated, or averaged over windows, share one. What enters or leaves the model
    beside layers in float is not rounded, but has a site: the file may be asked for integers there.

    Args:
        model: A model without nested models.
        operators: Its calls.

    Returns:
        The sites.
    """
    places = _Places(model)
    for node, rule in operators.calls():
        places.visit(node, rule, operators.inside)
    return places.sites([id(tensor) for tensor in (*model.inputs, *model.outputs) if _is_float(tensor)])


class _Places:
    """Where numbers may be rounded, found call by call."""

    def __init__(self, model: keras.Model) -> None:
        inputs = [id(tensor) for tensor in model.inputs if _is_float(tensor)]
        self.groups = _Groups()
        self.origins: dict[int, Place] = {place: place for place in inputs}
        self.fixed: dict[Place, Range] = {}
        self.wanted: set[Place] = set()
        self.places: list[Place] = [*inputs]

    def visit(self, node: Node, rule: Rule, inside: set[int]) -> None:
        """Note the places of one call; `inside` are tensors within operators."""
        sources = [self.origins[id(tensor)] for tensor in node.inputs if _is_float(tensor)]
        if rule.kind in _PASSES and sources:
            shared = self._share(node, sources)
            self.origins.update((id(output), shared) for output in node.outputs)
            return
        integer = rule.kind not in (Kind.NOTHING, Kind.FLOAT)
        if integer:
            self.wanted.update(sources)
        for output in map(id, filter(_is_float, node.outputs)):
            self.origins[output] = output
            if output in inside:
                continue
            self.places.append(output)
            if integer:
                self.wanted.add(output)
            if rule.range is not None:
                self.fixed[output] = rule.range
            elif rule.kind in _KEEPS and sources:
                self._tie(output, sources)

    def _share(self, node: Node, sources: list[Place]) -> Place:
        """Let what a call joins share a range; what has another one, fixed, is rounded once more on the way in."""
        if len({self.fixed.get(source) for source in sources}) > 1:
            for number, source in enumerate(sources):
                if source in self.fixed:
                    sources[number] = node.key, number
                    self.places.append(sources[number])
                    self.wanted.add(sources[number])
        for source in sources[1:]:
            self.groups.tie(source, sources[0])
        return sources[0]

    def _tie(self, output: Place, sources: list[Place]) -> None:
        learned = [source for source in sources if source not in self.fixed]
        if not learned and len({self.fixed[source] for source in sources}) == 1:
            self.fixed[output] = self.fixed[sources[0]]
        for source in learned:
            self.groups.tie(output, source)

    def sites(self, doors: list[int]) -> Placement:
        """Return the places at which numbers are rounded, numbered within groups; `doors` are inputs and outputs."""
        rounded = {self.groups.root(place) for place in self.wanted}
        roots = rounded | {self.groups.root(self.origins[door]) for door in doors}
        counts: Counter[Place] = Counter()
        numbers: dict[Place, int] = {}
        placement: Placement = {}
        for place in self.places:
            root = self.groups.root(place)
            if root not in roots:
                continue
            group = numbers.setdefault(root, len(numbers))
            placement[place] = Site(group, counts[root], self.fixed.get(place), root in rounded)
            counts[root] += 1
        return placement


def _is_float(tensor: keras.KerasTensor) -> bool:
    return bool(keras.backend.is_float_dtype(tensor.dtype))
