"""How far a run is, on stderr."""

import sys
import time
from datetime import timedelta
from typing import Any

import keras
from rich.console import Console


class Display:
    """Says which phase of how many begins, and how long the rest may take.

    Args:
        wanted: Whether to say anything.
        num_phases: How many phases there will be; 0 if that is not known.
    """

    def __init__(self, wanted: bool, num_phases: int = 0) -> None:
        self.wanted, self.num_phases = wanted, num_phases
        self._console = Console(stderr=True, quiet=not wanted, highlight=False)
        self._start = time.perf_counter()
        self._phase = self._epochs_done = 0
        self._epochs_now = self._epochs_later = 0
        self._training = 0.0

    @property
    def verbose(self) -> int:
        """What to give to `fit`: Keras' own progress bar on a terminal only."""
        return int(self.wanted and self._console.is_terminal and sys.stdout.isatty())

    @property
    def epochs_left(self) -> int:
        """How many epochs are to come at most, as far as is planned."""
        return self._epochs_now + self._epochs_later

    def plan(self, num_phases: int, num_epochs: int) -> None:
        """Take how much there is to do."""
        self.num_phases, self._epochs_later = num_phases, num_epochs

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False, soft_wrap=True)

    def begin(self, title: str, num_epochs: int = 0) -> None:
        """Print that the next phase begins, which trains for some epochs at most."""
        self._next(num_epochs)
        times = f"{_clock(time.perf_counter() - self._start)} so far"
        if self._epochs_done and self.num_phases:
            left = self.epochs_left * self._training / self._epochs_done
            times += f", about {_clock(left)} of training left"
        self.say(f"{self._place()} {title} ({times})")

    def skip(self, title: str, num_epochs: int = 0) -> None:
        """Print that a phase was done by an earlier call."""
        self._next(num_epochs)
        self.say(f"{self._place()} {title}: done before")

    def epoch_done(self, text: str, seconds: float) -> None:
        """Count an epoch, and print a line for it where there is no progress bar."""
        self._training += seconds
        self._epochs_done += 1
        self._epochs_now -= 1
        if not self.verbose:
            self.say(f"    {text}")

    def epochs_skipped(self, count: int) -> None:
        """Take that some epochs of a phase were done by an earlier call."""
        self._epochs_now -= count
        if count:
            self.say(f"    goes on after epoch {count}")

    def _next(self, num_epochs: int) -> None:
        self._phase += 1
        self._epochs_now = num_epochs
        self._epochs_later -= num_epochs

    def _place(self) -> str:
        return f"[{self._phase}/{self.num_phases}]" if self.num_phases else f"[{self._phase}]"


class EpochLines(keras.callbacks.Callback):
    """Tells a display of every epoch.

    Args:
        display: The display.
        epochs: How many there will be.
    """

    def __init__(self, display: Display, epochs: int) -> None:
        super().__init__()
        self._display, self._epochs = display, epochs

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Tell the display."""
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in (logs or {}).items())
        seconds = time.perf_counter() - self._start
        self._display.epoch_done(f"epoch {epoch + 1}/{self._epochs}: {numbers} ({seconds:.1f} s)", seconds)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
