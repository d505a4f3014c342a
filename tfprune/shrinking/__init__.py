"""From zeros to a smaller model: what goes, what takes its place, and how far."""
