"""The files of a run folder: typed, checked, versioned."""
