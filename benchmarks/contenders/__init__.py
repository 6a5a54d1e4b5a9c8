"""What `inference.py` compares: one file a contender, and what all of them are given."""
