"""What a type checker sees of the public names: mypy reads this file, nothing runs it."""

from typing import assert_type

import mnist_keras
from mnist_keras.losses.focal import BinaryFocalLoss, FocalLoss
from mnist_keras.optimizers import RAdam
from mnist_keras.portable import Dropout

assert_type(mnist_keras.FocalLoss(gamma=2.0), FocalLoss)
assert_type(mnist_keras.BinaryFocalLoss(gamma=2.0), BinaryFocalLoss)
assert_type(mnist_keras.RAdam(0.01), RAdam)
assert_type(mnist_keras.Dropout(0.5, seed=1), Dropout)
assert_type(mnist_keras.class_balanced_alpha([5000, 500, 50]), list[float])
mnist_keras.FocalLoss(gama=2.0)  # type: ignore[call-arg]
