"""Analyses of one trace."""
