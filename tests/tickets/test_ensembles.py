"""Ensembles: the mean of probabilities, as a plain model that saves, loads and becomes a file."""

import keras
import numpy as np
import pytest
from networks import chain, randomize

import tfprune
from tfprune.masking import recorded_mask
from tfprune.runtime import TFLiteModel
from tfprune.tickets import ensemble
from tfprune.training.masks import record_masks

L = keras.layers
X = np.random.default_rng(0).normal(size=(5, 8, 8, 2)).astype("float32")


def members(count=2, activation="softmax"):
    found = []
    for seed in range(count):
        model = randomize(chain(), seed=seed)
        model.get_layer("classes").activation = keras.activations.get(activation)
        kernel = model.get_layer("second").kernel
        record_masks(model, {kernel.path: np.random.default_rng(seed).random(kernel.shape) < 0.3})
        found.append(model)
    return found


def test_probabilities_are_averaged():
    models = members(3)
    together = ensemble(models)
    np.testing.assert_allclose(together(X), np.mean([model(X) for model in models], axis=0), rtol=1e-5)
    assert np.isclose(np.sum(together(X), axis=-1), 1).all()
    assert together.count_params() == 3 * models[0].count_params()


def test_logits_become_probabilities_first():
    models = members(2, activation="linear")
    found = ensemble(models, from_logits=True)(X)
    shares = [np.exp(logits) / np.exp(logits).sum(-1, keepdims=True) for logits in (np.asarray(m(X)) for m in models)]
    np.testing.assert_allclose(found, np.mean(shares, axis=0), rtol=1e-4)


def test_members_are_copied_with_their_masks():
    models = members(2)
    together = ensemble(models)
    for model, copy in zip(models, [layer for layer in together.layers if isinstance(layer, keras.Model)], strict=True):
        mask = recorded_mask(copy.get_layer("second").kernel)
        assert np.array_equal(mask, recorded_mask(model.get_layer("second").kernel))
        assert 0 < mask.mean() < 0.5
    before = np.asarray(together(X))
    models[0].get_layer("classes").bias.assign([9.0, 0.0, 0.0])
    np.testing.assert_array_equal(together(X), before)
    assert models[0].name != "ticket_1"


def test_it_is_saved_and_loaded_with_nothing_of_tfprune(tmp_path):
    together = ensemble(members())
    together.save(tmp_path / "ensemble.keras")
    assert "tfprune" not in together.to_json()
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "ensemble.keras")(X), together(X))


def test_it_becomes_a_file(tmp_path):
    def member():
        return keras.Sequential([keras.Input((3,)), L.Dense(2, "softmax", kernel_initializer="random_normal")])

    together, x = ensemble([member(), member()]), X[0, :, :3, 0]
    tfprune.export(together, tmp_path / "ensemble.tflite")
    np.testing.assert_allclose(TFLiteModel(tmp_path / "ensemble.tflite").predict(x), together(x), rtol=1e-5)


def test_several_inputs_and_outputs_keep_their_structure():
    def build(seed):
        keras.utils.set_random_seed(seed)
        inputs = {"left": keras.Input((2,), name="left"), "right": keras.Input((3,), name="right")}
        x = L.Concatenate()([inputs["left"], inputs["right"]])
        return keras.Model(inputs, {"a": L.Dense(2, name="a")(x), "b": L.Dense(1, name="b")(x)})

    models, data = [build(seed) for seed in range(2)], {"left": np.ones((4, 2)), "right": np.ones((4, 3))}
    found = ensemble(models)(data)
    for name in ("a", "b"):
        np.testing.assert_allclose(found[name], np.mean([model(data)[name] for model in models], axis=0), rtol=1e-5)


def test_what_does_not_fit_together_is_refused():
    model = chain()
    with pytest.raises(ValueError, match=r"at least two models. Received: 1"):
        ensemble([model])
    other = keras.Sequential([keras.Input((8, 8, 2)), L.GlobalAveragePooling2D(), L.Dense(4)])
    with pytest.raises(ValueError, match=r"take and give the same.*number 2 has .*\(None, 4\)"):
        ensemble([model, other])
