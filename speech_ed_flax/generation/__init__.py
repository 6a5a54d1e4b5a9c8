"""Token ids from scores: settings, processors of the scores, and search."""
