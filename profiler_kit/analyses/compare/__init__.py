"""Compare traces and snapshots."""
