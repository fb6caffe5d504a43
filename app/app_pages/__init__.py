"""One module a page: `show()` draws it."""
