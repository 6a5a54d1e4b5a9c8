"""Planning a training: its programs compiled for devices that need not be there, and their costs."""
