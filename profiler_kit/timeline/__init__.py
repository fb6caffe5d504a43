"""The drawing index of the timeline: build, search, tiles."""
