"""Read what was recorded: files in, columns out."""
