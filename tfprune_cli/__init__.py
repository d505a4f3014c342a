"""The command line `tfprune`: what the library does, for files."""

from tfprune_cli.command import main

__all__ = ["main"]
