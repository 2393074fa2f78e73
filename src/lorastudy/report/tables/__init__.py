"""Tables of the report, as values and as Markdown, CSV, LaTeX, JSON and HTML."""
