"""The workload profiler_kit ships with: Segment Anything and the optimizations that make it fast."""
