"""Windows of a trace as chrome traces for Perfetto."""
