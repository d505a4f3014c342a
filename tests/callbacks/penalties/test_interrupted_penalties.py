"""A fit with a penalty that is cut off: the next fit trains without it, whatever it is given."""

import keras
import numpy as np
import pytest
from networks import chain, compiled, images, randomize, relative_difference, weights_of

from tfprune.callbacks import GroupLasso, GrowingRegularization, MorphNet, NetworkSlimming

PENALTIES = {
    "GroupLasso": lambda: GroupLasso(0.3),
    "GrowingRegularization": lambda: GrowingRegularization(0.5, frequency=1, limit=2.0),
    "NetworkSlimming": lambda: NetworkSlimming(0.3, 0.5, prune_at=2),
    "MorphNet": lambda: MorphNet(30.0),
}


class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            raise KeyboardInterrupt


def model_of(weights=None):
    model = compiled(randomize(chain()), keras.optimizers.SGD(0.05), jit_compile=False)
    if weights is not None:
        model.set_weights(weights)
    return model


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "GroupLasso" else pytest.mark.slow) for name in PENALTIES]
)
def test_a_plain_fit_afterwards_trains_without_the_penalty(name):
    x, y = images(16)
    model = model_of()
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[PENALTIES[name](), Stop()])
    plain = model_of(weights_of(model))
    for each in (model, plain):
        each.fit(x, y, batch_size=4, epochs=2, verbose=0, shuffle=False)
    assert relative_difference(weights_of(plain), weights_of(model)) < 1e-5
    assert "apply" not in vars(model.optimizer)
    assert "fit" not in vars(model)
    assert np.isfinite(model.predict(x, verbose=0)).all()
