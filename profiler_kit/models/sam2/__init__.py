"""SAM 2.1 on images: transformers' model, Meta's checkpoints, and the optimizations that make it fast."""
