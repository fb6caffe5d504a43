"""Read CUDA memory snapshots without trusting them."""
