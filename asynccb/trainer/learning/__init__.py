"""From a model's outputs to its next weights: losses, optimizer and schedule."""
