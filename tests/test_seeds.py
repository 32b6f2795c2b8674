"""Generators keyed by (seed, purpose)."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest

import mnist_keras
from mnist_keras._foundations import seeds
from mnist_keras._foundations.seeds import generator

pytestmark = pytest.mark.any_backend


def test_same_key_same_numbers():
    """Equal seed and purpose give equal numbers; another seed or purpose gives others."""
    numbers = generator(0, "split").random(8)

    np.testing.assert_array_equal(numbers, generator(0, "split").random(8))
    np.testing.assert_array_equal(numbers, generator(np.int64(0), "split").random(8))
    assert not np.any(numbers == generator(1, "split").random(8))
    assert not np.any(numbers == generator(0, "draw").random(8))


def test_numbers_never_change():
    """The streams are fixed: results of earlier versions have to stay reproducible."""
    assert generator(0, "split").integers(0, 1000, 4).tolist() == [182, 49, 673, 789]


@pytest.mark.parametrize("seed", [-1, 1.0, "0", None, True])
def test_bad_seed(seed):
    """Anything but an integer >= 0 is refused."""
    with pytest.raises(ValueError, match=r"`seed` must be an integer >= 0"):
        generator(seed, "split")


def test_the_list_of_purposes_is_complete():
    """The module lists every purpose for which the package asks for a generator, and no other."""
    listed = re.findall(r'^    "(.*?)"  ', seeds.__doc__, re.MULTILINE)
    found = set()
    for path in Path(mnist_keras.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "generator":
                purpose = ast.unparse(call.args[1]).replace("self.", "")
                is_text = purpose.endswith("'")
                found.add(purpose.removeprefix("f").strip("'") if is_text else f"{{{purpose}}}")
    assert sorted(listed) == sorted(found)
