"""Longer works made of phases."""
