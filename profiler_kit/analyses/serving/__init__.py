"""Requests to a server: what each waited for, and what a load test saw."""
