"""Print the numbers of docs/representation.md that `mnist-keras run` does not print.

    python tests/benchmarks/representation.py tuning IDX_FOLDER [WORD]
    python tests/benchmarks/representation.py table RESULTS_FOLDER…

`tuning` cross-validates inside the 400 labels of seeds 0 to 4. Arms that learn from unlabeled
images learn from the held-out ones, which are never scored. WORD keeps the variants whose name
has it. `table` puts the held-out accuracies of several results folders side by side.
"""

import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

import chosen_backend  # noqa: F401
import numpy as np
from shared import print_table
from sklearn.model_selection import StratifiedKFold

from mnist_keras._foundations.statistics import t_interval, wilson_interval
from mnist_keras._foundations.texts import percent
from mnist_keras.datasets import sources
from mnist_keras.datasets.splits import draw
from mnist_keras.experiments.experiment import find
from mnist_keras.experiments.report.rows import results
from mnist_keras.experiments.results_folder import ResultsFolder
from mnist_keras.training import classical, representation, stages
from mnist_keras.training.data import Data
from mnist_keras.training.engine import train
from mnist_keras.training.networks import Networks
from mnist_keras.training.run import Run

SEEDS = range(5)
(EXPERIMENT,) = find(["representation"])
ARMS = {arm.name: arm.settings for arm in EXPERIMENT.arms}
LONG = {"pretraining_epochs": 15}
HOG, COPIES = "deskew + HOG + SVM", "deskew + HOG + SVM, 10 elastic copies"
PROBE, SIMCLR = "VICReg, linear probe", "SimCLR, linear probe"
STUDENT = "self-training, transductive"
ONE = {"width": 16, "members": 1, "views": 0}
CELLS, RATE = (classical, "_CELLS"), (representation, "_RATE")
# The arm, the settings that differ, and the modules' numbers that differ.
VARIANTS = {
    "HOG, 5×5 cells, 9 directions (chosen)": (HOG, {}, {}),
    "HOG, 4×4 cells, 9 directions": (HOG, {}, {CELLS: 4}),
    "HOG, 7×7 cells, 9 directions": (HOG, {}, {CELLS: 7}),
    "HOG, 7×7 cells, 12 directions": (HOG, {}, {CELLS: 7, (classical, "_DIRECTIONS"): 12}),
    "HOG and 10 copies (chosen)": (COPIES, {}, {}),
    "network (chosen)": ("small CNN + elastic", {}, {}),
    "VICReg, rate 0.005 (chosen)": (PROBE, LONG, {}),
    "VICReg, rate 0.002": (PROBE, LONG, {RATE: 0.002}),
    "VICReg, rate 0.01": (PROBE, LONG, {RATE: 0.01}),
    "SimCLR, temperature 0.5 (chosen)": (SIMCLR, LONG, {}),
    "SimCLR, temperature 0.2": (SIMCLR, LONG, {(representation, "_TEMPERATURE"): 0.2}),
    "student of one network (chosen)": (STUDENT, ONE, {}),
    "student of a student": (STUDENT, ONE | {"self_training_rounds": 2}, {}),
    "student, labels once": (STUDENT, ONE, {(stages, "_REPEATS"): 1}),
}


def cross_validated(settings, images, seed):
    """Return which of the 400 are right when each fifth is predicted from the other four."""
    drawn, heldout = draw(images, 50, seed)
    training, _ = Data(drawn, heldout).split(settings, seed)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    right, networks = [], Networks()
    for _, fold in folds.split(training.labels, training.labels):
        data = Data(training, heldout.take([]), training.fingerprints[fold], unlabeled=heldout)
        record = train(Run.whole(settings, seed), data, networks=networks).record
        right += (record.scores[settings.all_epochs].test == record.test_labels).tolist()
    return np.array(right)


def tuning(images, word=""):
    yield ["variant", "right of 2,000, % [Wilson's 95 % interval]"]
    for name, (arm, changes, numbers) in VARIANTS.items():
        if word not in name:
            continue
        settings = ARMS[arm].replace(**changes)
        with ExitStack() as stack:
            for place, value in numbers.items():
                stack.enter_context(patch.object(*place, value))
            right = np.concatenate([cross_validated(settings, images, seed) for seed in SEEDS])
        yield [name, percent(right.mean(), wilson_interval(right.sum(), len(right)))]


def side_by_side(paths):
    folders = [ResultsFolder(Path(path)) for path in paths]
    found = [results(folder.read_plan(), folder.records()[0]) for folder in folders]
    plans = [each.plan for each in found]
    yield ["arm", *(f"{plan.data_name}, {len(plan.data_fingerprints)} seeds" for plan in plans)]
    for arm in EXPERIMENT.arms:
        cells = []
        for each in found:
            (row,) = [r for table in each.tables for r in table.rows if r.arm.name == arm.name]
            low, high = t_interval(row.heldout) or (np.nan, np.nan)
            cells.append(percent(fmean(row.heldout), (low, min(high, 1.0))))
        yield [arm.name, *cells]


match sys.argv[1:]:
    case ["table", _, *_] as arguments:
        print_table(side_by_side(arguments[1:]))
    case ["tuning", idx] | ["tuning", idx, _] as arguments:
        print_table(tuning(sources.load("mnist", Path(idx), channels=3), *arguments[2:]))
    case _:
        sys.exit(__doc__)
