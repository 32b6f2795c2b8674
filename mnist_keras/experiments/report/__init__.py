"""What records say, as tables, figures, files for other programs, and a page."""
