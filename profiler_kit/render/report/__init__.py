"""The report: one offline HTML page, or Markdown."""
