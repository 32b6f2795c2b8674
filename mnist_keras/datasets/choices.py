"""What callers choose from. Imports no NumPy, so that the command line can ask at no cost."""

from typing import Literal

# Each source with the name of its images in tables.
SOURCES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "digits": "digits (scikit-learn)"}
# Images drawn from each class, as the original did.
PER_CLASS = 50
# A folder with more files is rather a wrong path than a data set.
MAX_FILES = 1_000_000

ColorMode = Literal["grayscale", "rgb", "rgba"]
Interpolation = Literal[
    "bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5", "gaussian", "mitchellcubic"
]
Aspect = Literal["stretch", "crop", "pad"]
Cache = Literal["memory", "disk", "none"]
OnBad = Literal["refuse", "skip"]
