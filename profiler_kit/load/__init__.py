"""Read what was recorded, and find it on disk."""
