"""What every test gets: the same seeds, and a clean Keras session."""

import gc
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
settings.register_profile("quick", settings.get_profile("tfprune"), max_examples=25)


def pytest_configure(config):
    """A run without slow tests draws a quarter of the examples."""
    settings.load_profile("quick" if "not slow" in config.option.markexpr else "tfprune")


@pytest.fixture(autouse=True)
def clean_session(monkeypatch):
    """Names count from zero, seeds are set, lines are as long everywhere, and no test leaves another type behind."""
    monkeypatch.setenv("COLUMNS", "120")
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    yield
    left_behind = keras.config.dtype_policy().name
    keras.config.set_dtype_policy("float32")
    assert left_behind == "float32"


@pytest.fixture
def eager_steps(monkeypatch):
    """Steps of `fit`, `evaluate` and `predict` are not traced, which takes longer than to make few of them."""
    monkeypatch.setattr(keras.Model, "run_eagerly", property(lambda model: True, lambda model, value: None))


def pytest_collection_finish():
    _freeze()


@pytest.fixture(scope="module", autouse=True)
def swept():
    """What a module leaves behind is collected once, and what then still lives is not looked at again."""
    yield
    _freeze()


def _freeze():
    # The converter collects all garbage in every conversion, which takes longer the more objects there are: without
    # this a second for each file, after some hundred tests.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Of a parametrized test with the mark `sampled(n)`, n cases, spread over all, stay; the others become `slow`.

    Where the sample starts differs from test to test, so that the tests of a file do not all leave out the same cases.
    A `slow` run has all of them.
    """
    files = {}
    for item in items:
        mark = item.get_closest_marker("sampled")
        if mark and not item.get_closest_marker("slow"):
            functions = files.setdefault(item.path, {})
            functions.setdefault((item.cls, item.originalname), (*mark.args, []))[-1].append(item)
    for functions in files.values():
        # Counted within the file, so that a file that is run alone has the same sample.
        for place, (count, cases) in enumerate(functions.values()):
            step = max(1.0, len(cases) / count)
            kept = {int((place + index * step) % len(cases)) for index in range(count)}
            for index, item in enumerate(cases):
                if index not in kept:
                    item.add_marker(pytest.mark.slow)
