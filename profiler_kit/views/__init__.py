"""Draw: frames in, figures, pages and text out."""
