from .augmentation import Warp as Warp
from .augmentation import warp as warp
from .batches import Batches as Batches
from .batches import WarpedBatches as WarpedBatches
from .from_directory import image_dataset_from_directory as image_dataset_from_directory
from .images import DataError as DataError
from .images import LabeledImages as LabeledImages
from .images import LazyImages as LazyImages
