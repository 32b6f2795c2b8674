"""`python -m mnist_keras` is `mnist-keras`."""

from mnist_keras.cli import main

main()
