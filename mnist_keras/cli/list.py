"""`mnist-keras list`: name the experiments."""

import click


@click.command("list")
def list_experiments() -> None:
    """Name the experiments that `run` knows, with the original's section and their arms."""
    from mnist_keras.experiments.experiment import built_in, load

    for name, path in built_in().items():
        experiment = load(path)
        arms = ", ".join(arm.name for arm in experiment.arms)
        click.echo(f"{name:<16}{experiment.title} (section {experiment.section}): {arms}")
