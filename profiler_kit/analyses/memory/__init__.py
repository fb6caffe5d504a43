"""Analyses of one memory snapshot."""
