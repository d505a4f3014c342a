"""What every test gets: the same seeds, and a clean Keras session."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest
from hypothesis import HealthCheck, Phase, settings

# Failing graphs are reported as drawn: making them smaller would build thousands of models.
settings.register_profile(
    "tfprune",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("tfprune")


@pytest.fixture(autouse=True)
def clean_session():
    """Names count from zero, seeds are set, and no test leaves another data type behind."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    yield
    left_behind = keras.config.dtype_policy().name
    keras.config.set_dtype_policy("float32")
    assert left_behind == "float32"
