"""What a model is worth with some of its weights at zero: one copy, compiled once, for all of them."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import keras
import tensorflow as tf

from tfprune.common.checks import check_choice
from tfprune.common.temporarily import restored
from tfprune.data import Batch
from tfprune.graph import Analysis
from tfprune.measure.scores import Metric, MetricScore, Score, make_score
from tfprune.rewriting.cloning import duplicate
from tfprune.shrinking.recalibration import batch_normalizations, measure_statistics
from tfprune.statistics.any_size import any_size
from tfprune.statistics.evaluation import Evaluation
from tfprune.training.masks import Masks

AnyMetric: TypeAlias = Metric | Literal["loss", "divergence", "accuracy"] | None
Better: TypeAlias = Literal["lower", "higher", ""]


class Bench:
    """A copy of a model whose weights are set to zero and back.

    Args:
        model: The model; it is not changed.
        analysis: Its analysis.
        batches: The data.
        metric: None for the compiled loss where there are labels and a loss, else the divergence from what the
            model answers; `"loss"`, `"divergence"` or `"accuracy"`; or a metric.

    Attributes:
        metric: What the scores are.
        better: Whether `"lower"` or `"higher"` is better; empty if that is not known.

    Raises:
        TypeError: If the metric is nothing that measures.
        ValueError: If it needs labels and there are none, or does not fit the outputs.
    """

    def __init__(self, model: keras.Model, analysis: Analysis, batches: Sequence[Batch], metric: AnyMetric) -> None:
        self._copy, twins = duplicate(model, analysis)
        self._twins = {variable.path: twins[id(variable)] for variable in model.variables if id(variable) in twins}
        self._batches = batches
        self._norms = batch_normalizations(self._copy)
        self._step = tf.function(lambda x: self._copy(x, training=True), reduce_retracing=True, autograph=False)
        if metric is None:
            labels = all(batch.y is not None for batch in batches)
            metric = "loss" if labels and model.compiled and model.loss is not None else "divergence"
        self.metric, self.better = _named(metric)
        self._metric: Metric | None = None if isinstance(metric, str) else metric
        self._evaluation: Evaluation | None = None
        if metric in ("loss", "divergence"):
            self._evaluation = Evaluation(self._copy, batches, "compiled" if metric == "loss" else "divergence")
        else:
            score = self._new_score()
            for batch in batches:
                score.check(batch)

    def score(self) -> float:
        """Return the score of the model as the copy is."""
        if self._evaluation is not None:
            return self._evaluation.loss()
        score = self._new_score()
        for batch in self._batches:
            score.add(batch, self._copy.predict_on_batch(batch.x))
        return score.result()

    def score_without(self, masks: Masks) -> float:
        """Return the score with weights at zero, after BatchNormalization statistics are measured anew.

        Args:
            masks: By the paths of the model's variables, which weights stay.
        """
        pruned = [self._twins[path] for path in masks]
        moved = [variable for layer in self._norms for variable in (layer.moving_mean, layer.moving_variance)]
        with restored([*pruned, *moved]):
            for variable, mask in zip(pruned, masks.values(), strict=True):
                variable.assign(variable.numpy() * mask)
            if self._norms:
                measure_statistics(self._copy, self._batches, self._train)
            return self.score()

    def _train(self, x: Any) -> None:
        """Call the model as in training; compiled only when `measure_statistics` has set its layers up for it."""
        self._step.get_concrete_function(any_size(x))
        self._step(x)

    def _new_score(self) -> Score:
        outputs = [tuple(tensor.shape[1:]) for tensor in keras.tree.flatten(self._copy.outputs)]
        if len(outputs) != 1:
            raise ValueError(
                f"A metric is of one output, and {self._copy.name!r} has {len(outputs)}. Leave metric out for the "
                "compiled loss, or use metric='divergence'."
            )
        return make_score(self._metric, outputs[0])


def _named(metric: Metric | str) -> tuple[str, Better]:
    if isinstance(metric, str):
        check_choice("metric", metric, ("loss", "divergence", "accuracy"))
        return metric, "higher" if metric == "accuracy" else "lower"
    return MetricScore(metric).name, ""
