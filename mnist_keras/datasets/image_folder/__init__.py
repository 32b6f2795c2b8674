"""Audit a class-per-folder directory, and read it into labeled images.

In reading order: `findings` (what can be wrong, how grave it is, what to do), `walk` (folders),
`truncation` and `decoding` (one file), `oddities` (many images together), `image_store` (what is
kept), `reading` (one pass over all files), and `audit`, which joins them.
"""
