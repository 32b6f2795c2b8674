"""`mnist-keras doctor`: what is installed, what would change numbers, and whether it trains."""

import json
import os
import subprocess
import sys
import time
from typing import Any

import click

from mnist_keras.cli import options

# Beginnings of names of variables that decide how Keras, a backend or its threads compute.
_VARIABLES = (
    *("KERAS_", "MNIST_KERAS_", "JAX_", "XLA_", "TORCH", "PYTORCH_", "CUDA_"),
    *("TF_CPP_", "TF_DETERMINISTIC_", "TF_ENABLE_", "TF_FORCE_", "TF_NUM_", "TF_XLA_"),
    *("OMP_", "MKL_", "OPENBLAS_"),
)
# What prints the devices of a backend, which a broken one does not survive.
_DEVICES = {
    "jax": "import jax; print(*jax.devices(), sep=', ')",
    "tensorflow": "import tensorflow as tf\n"
    "print(*(device.name for device in tf.config.list_physical_devices()), sep=', ')",
    "torch": "import torch\n"
    "gpus = map(torch.cuda.get_device_name, range(torch.cuda.device_count()))\n"
    "print('cpu', *gpus, sep=', ')",
}


@click.command(epilog=options.example("mnist-keras doctor", "mnist-keras doctor --format json"))
@options.word("--format", ("text", "json"), "text", "How it is printed.")
@options.backend
def doctor(format: str, backend: str | None) -> None:
    """Check what is installed, and train for some seconds.

    It prints what a bug report needs: versions, backends and their devices, cores, settings that
    could change numbers, caches, where MNIST would come from, and a training on the embedded
    digits. Exit code 4 if no backend can be used for that.
    """
    from mnist_keras._foundations.backends import BackendError
    from mnist_keras.datasets.sources import origin

    found = {
        "versions": _versions(),
        "backends": _backends(),
        "cores": _cores(),
        "settings": _settings(),
        "caches": _caches(),
        "MNIST": origin("mnist"),
    }
    try:
        options.use_backend(backend)
        found["training"], code = _training(), 0
    except BackendError as error:
        found["training"], code = f"none: {error}", 4
    if format == "json":
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        _print(found)
    sys.exit(code)


def _print(found: dict[str, Any]) -> None:
    for heading, facts in found.items():
        click.echo(f"{heading}: {facts}" if isinstance(facts, str) else f"{heading}:")
        for name, fact in facts.items() if isinstance(facts, dict) else ():
            click.echo(f"  {name}: {fact}")


def _versions() -> dict[str, str]:
    import platform
    import re
    from importlib import metadata

    needed = [line for line in metadata.requires("mnist-keras") or () if "extra" not in line]
    names = [re.split(r"[^\w.-]", line)[0] for line in needed]
    python = f"{platform.python_version()}, {platform.platform()}"
    return {"Python": python} | {n: metadata.version(n) for n in ("mnist-keras", *names)}


def _backends() -> dict[str, str]:
    """Return the version and the devices of each backend, or why it cannot be used."""
    from importlib import metadata

    from mnist_keras._foundations import backends

    found = dict.fromkeys(backends.TRAINABLE, "not installed")
    for name in backends.installed():
        command = [sys.executable, "-c", _DEVICES[name]]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        devices = done.stdout.strip() if done.returncode == 0 else f"does not import: {last}"
        versions = [d.version for d in metadata.distributions(name=name)] or ["unknown version"]
        found[name] = f"{versions[0]}, {devices}"
    return found


def _cores() -> str:
    from mnist_keras.experiments.run import available_cores

    return f"{len(available_cores())} of {os.cpu_count()} may be used"


def _settings() -> dict[str, str]:
    """Return the environment variables, and Keras's file, that programs with Keras read."""
    from mnist_keras._foundations.backends import keras_home

    found = {name: os.environ[name] for name in sorted(os.environ) if name.startswith(_VARIABLES)}
    path = keras_home() / "keras.json"
    said = " ".join(path.read_text(errors="replace").split()) if path.exists() else "none"
    return {**found, "keras.json": f"{said} (no command of this program follows it)"}


def _caches() -> dict[str, str]:
    from mnist_keras._foundations.backends import keras_home
    from mnist_keras.datasets.image_folder.image_store import cache_folder

    folders = {"images": cache_folder(), "downloads by Keras": keras_home() / "datasets"}
    return {name: f"{folder}, {_megabytes(folder)}" for name, folder in folders.items()}


def _megabytes(folder: Any) -> str:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return f"{sum(sizes) / 1e6:.1f} MB in {len(sizes)} files" if sizes else "empty"


def _training() -> str:
    """Train the small CNN on digits; return its accuracy and what it took."""
    from mnist_keras.cli.data_options import seed_images
    from mnist_keras.inference.trained_model import train_model
    from mnist_keras.training.settings import Settings

    settings = Settings(model="small_cnn", loss="crossentropy", activation="relu", epochs=8)
    started = time.monotonic()
    trained = train_model(settings, 0, seed_images(source="digits").of(0))
    seconds = time.monotonic() - started
    reached = "; ".join(str(trained.card.metrics).splitlines())
    return f"{settings.model}, {settings.epochs} epochs in {seconds:.1f} s; {reached}"
