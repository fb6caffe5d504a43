"""A mask generator behind HTTP, and what measures it under load."""
