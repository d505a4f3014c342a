"""Longer works made of phases, kept in a folder, which go on where they were cut off."""
