"""Inside the compiled training step: hooks around the update, masks, proximal steps, and the clock."""
