"""Building blocks that every family shares; nothing here reads a family's config."""
