"""How the place of Adam's epsilon moves ours away from the original's program in a few equal steps.

    KERAS_BACKEND=torch python tests/benchmarks/adam_epsilon.py IDX_FOLDER

The original's CNN in PyTorch and ours start from equal weights and take the same batches without
dropout. The table shows the largest difference of their log-probabilities.
"""

import keras
import numpy as np
import original_program
import torch
from keras import ops
from shared import options, print_table

from mnist_keras import Adam, cnn
from mnist_keras.models.torch_weights import torch_state

STEPS = (1, 5, 10)
OPTIMIZERS = {
    "keras.optimizers.Adam, epsilon=1e-7": lambda: keras.optimizers.Adam(0.001),
    "keras.optimizers.Adam, epsilon=1e-8": lambda: keras.optimizers.Adam(0.001, epsilon=1e-8),
    "mnist_keras.Adam, epsilon=1e-8": lambda: Adam(0.001, epsilon=1e-8),
}


def distances(make_optimizer, x, y):
    """Return the largest difference of log-probabilities after each of `STEPS`."""
    ours, theirs = cnn(), original_program.CNN().eval()
    theirs.load_state_dict({k: torch.tensor(v) for k, v in torch_state(ours).items()})
    for layer in ours.layers:
        if layer.name.startswith("dropout"):
            layer.rate = 0
    ours.compile(make_optimizer(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    optimizer = torch.optim.Adam(theirs.parameters(), lr=0.001)
    images = x.permute(0, 2, 3, 1).numpy()
    found = []
    for step in range(1, max(STEPS) + 1):
        part = slice((step - 1) % 4 * 100, (step - 1) % 4 * 100 + 100)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(theirs(x[part]), y[part]).backward()
        optimizer.step()
        ours.train_on_batch(images[part], y[part].numpy())
        if step in STEPS:
            logits = torch.tensor(np.array(ops.convert_to_numpy(ours(images[:100]))))
            with torch.no_grad():
                difference = torch.log_softmax(logits, 1) - theirs(x[:100])
            found.append(float(difference.abs().max()))
    return found


x, y = (array[:400] for array in original_program.read_mnist(options(__doc__, "idx").idx))
rows = (
    [f"`{name}`", *(f"{value:.1e}" for value in distances(make_optimizer, x, y))]
    for name, make_optimizer in OPTIMIZERS.items()
)
print_table([["optimizer", *(f"{step} steps" for step in STEPS)], *rows])
