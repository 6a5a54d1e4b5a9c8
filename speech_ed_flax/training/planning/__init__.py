"""Planning a training: what its programs cost on devices that need not be there."""
