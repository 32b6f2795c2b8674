from .datasets.batches import Batches as Batches
from .datasets.from_directory import image_dataset_from_directory as image_dataset_from_directory
from .explanations.maps import grad_cam as grad_cam
from .explanations.maps import hires_cam as hires_cam
from .explanations.maps import occlusion as occlusion
from .losses.focal import BinaryFocalLoss as BinaryFocalLoss
from .losses.focal import FocalLoss as FocalLoss
from .losses.focal import binary_focal_loss as binary_focal_loss
from .losses.focal import focal_loss as focal_loss
from .losses.imbalance import class_balanced_alpha as class_balanced_alpha
from .losses.imbalance import prior_logit as prior_logit
from .models.original import basic_net as basic_net
from .models.original import cnn as cnn
from .optimizers import Adam as Adam
from .optimizers import RAdam as RAdam
from .portable import Dropout as Dropout
from .portable import FanInUniform as FanInUniform
from .portable import GlorotUniform as GlorotUniform
from .portable import HeUniform as HeUniform
from .portable import SpatialDropout2D as SpatialDropout2D

__version__: str
