"""Record a run: traces, memory snapshots and layer timings."""
