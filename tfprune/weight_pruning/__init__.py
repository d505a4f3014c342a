"""Single weights pruned at once, before training or after it, by what the weights or data say."""
