"""Changed copies of a model."""
