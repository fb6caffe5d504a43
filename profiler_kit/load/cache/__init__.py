"""Keep what was loaded, so that it loads at once the next time."""
