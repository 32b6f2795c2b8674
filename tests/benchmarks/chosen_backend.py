"""Starts Keras on the backend that the environment or the machine names. Import it first."""

from mnist_keras._foundations import backends

backends.use(backends.choose())
