"""Audit a class-per-folder directory, and read it into labeled images.

In reading order: `findings` (what can be wrong, how grave it is, what to do), `walk` (folders),
`endings`, `decoding` and `resizing` (one file), `contents` (many images together), `cache` (what
was found before), `reading` (one pass over all files), and `audit`, which joins them.
"""
