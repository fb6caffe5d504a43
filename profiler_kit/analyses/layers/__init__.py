"""Analyses of per-layer timings."""
