import pytest

from tfprune.exporting import ExportOptions, ImageMetadata


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"tolerance": 0.0}, ValueError, r"tolerance must be above 0\. Received: 0\.0"),
        ({"tolerance": float("nan")}, ValueError, "tolerance must be above 0"),
        ({"max_samples": 0}, ValueError, r"max_samples must be 1 or more\. Received: 0"),
        ({"metadata": ["cat", "dog"]}, TypeError, r"must be a tfprune\.ImageMetadata\. Received: list"),
    ],
)
def test_bad_options_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        ExportOptions(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": "cat"}, r"sequence of class names\. Received: 'cat'"),
        ({"labels": ()}, "sequence of class names"),
        ({"labels": (1, 2)}, "sequence of class names"),
        ({"labels": ("cat", " ")}, r"none may be empty .* Received: \[' '\]"),
        ({"labels": ("cat", "a\nb")}, "stored one a line"),
        ({"std": 0.0}, r"std must be above 0\. Received: \(0\.0,\)"),
    ],
)
def test_bad_metadata_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImageMetadata(**{"labels": ("cat", "dog"), "mean": 0, "std": 255, **arguments})
