from .focal import FocalLoss as FocalLoss
from .focal import class_balanced_alpha as class_balanced_alpha
from .focal import focal_loss as focal_loss
from .two_views import NTXent as NTXent
from .two_views import VICReg as VICReg
