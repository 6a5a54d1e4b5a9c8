"""Training: the loss, the optimizer and the step."""
