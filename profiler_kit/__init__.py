"""profiler_kit: capture, load, attribute and show where PyTorch inference spends time and memory."""
