"""Models that were made for several replicas."""

import json
import subprocess
import sys

import pytest

MIRRORED = """
import json
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
import numpy as np
from tfprune.statistics import gather
from tfprune.statistics.gathering import known_statistics

def build():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(6, activation="relu"), keras.layers.BatchNormalization(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((4,)), *layers], name="net")
    model.compile("sgd", "mse", jit_compile=False)
    return model

random = np.random.default_rng(0)
data = random.normal(size=(6, 4)).astype("float32"), random.normal(size=(6, 3)).astype("float32")
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())
with strategy.scope():
    mirrored = build()
keras.utils.clear_session()
found = [gather(model, data, known_statistics(), loss="compiled", batch_size=4) for model in (build(), mirrored)]
pairs = zip(*([array for *_, array in each.each()] for each in found), strict=True)
try:
    with strategy.scope():
        gather(mirrored, data, ["gradient"])
except ValueError as error:
    refused = str(error)
print(json.dumps([max(float(abs(a - b).max()) for a, b in pairs), len(found[0].names), refused]))
"""


@pytest.mark.slow
def test_statistics_of_a_mirrored_model_are_those_of_a_plain_one():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", MIRRORED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    difference, count, refused = json.loads(done.stdout.splitlines()[-1])
    assert difference == 0
    assert count > 5
    assert "outside `with strategy.scope():`" in refused
