"""Hypothesis strategies: arbitrary Keras models, and channels to remove from them."""

from strategies.choices import choose
from strategies.models import draw_model

__all__ = ["choose", "draw_model"]
