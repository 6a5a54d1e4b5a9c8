"""Sound: files, features and segments; numpy only, so that decoding workers start fast."""
