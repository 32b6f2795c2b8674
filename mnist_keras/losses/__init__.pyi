from .focal import BinaryFocalLoss as BinaryFocalLoss
from .focal import FocalLoss as FocalLoss
from .focal import binary_focal_loss as binary_focal_loss
from .focal import focal_loss as focal_loss
from .imbalance import class_balanced_alpha as class_balanced_alpha
from .imbalance import prior_logit as prior_logit
from .two_views import NTXent as NTXent
from .two_views import VICReg as VICReg
