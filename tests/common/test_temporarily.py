"""What is changed for a while is put back, also where something is raised."""

import keras
import pytest

from tfprune.common.temporarily import replaced_calls, restored


def change(variable, only_if_raised, error=None):
    with restored([variable], only_if_raised=only_if_raised):
        variable.assign(2.0)
        if error is not None:
            raise error


@pytest.mark.parametrize(("only_if_raised", "kept"), [(False, 1.0), (True, 2.0)])
def test_variables_are_restored(only_if_raised, kept):
    variable = keras.Variable(1.0)
    change(variable, only_if_raised)
    assert float(variable.numpy()) == kept
    variable.assign(1.0)
    with pytest.raises(KeyboardInterrupt):
        change(variable, only_if_raised, KeyboardInterrupt())
    assert float(variable.numpy()) == 1.0


def use_replaced(layers, error):
    with replaced_calls((each, lambda x: x + 1) for each in layers):
        assert [float(each(keras.ops.array(-1.0))) for each in layers] == [0.0, 0.0]
        raise error


def test_calls_are_the_layers_own_again():
    layers = [keras.layers.ReLU(), keras.layers.Activation("tanh")]
    with pytest.raises(ValueError, match="stopped"):
        use_replaced(layers, ValueError("stopped"))
    assert not any("call" in vars(each) for each in layers)
