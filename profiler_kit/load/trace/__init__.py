"""Read chrome traces."""
