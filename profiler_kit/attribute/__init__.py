"""Attribute GPU work to the code that launched it."""
