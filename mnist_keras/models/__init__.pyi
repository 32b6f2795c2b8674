from .encoders import encoder as encoder
from .encoders import small_cnn as small_cnn
from .original import basic_net as basic_net
from .original import cnn as cnn
from .prediction import predict as predict
from .prediction import softmax as softmax
from .torch_weights import load_torch_state as load_torch_state
from .torch_weights import torch_state as torch_state
