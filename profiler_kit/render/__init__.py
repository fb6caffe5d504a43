"""Draw: text, HTML, figures, notebooks, Perfetto."""
