"""The memory page: one offline HTML file."""
