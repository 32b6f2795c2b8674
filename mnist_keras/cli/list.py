"""`mnist-keras list`: name the experiments, or describe their files."""

import json

import click


@click.command("list")
@click.option(
    "--schema", is_flag=True, help="Print the JSON Schema of an experiment's file instead."
)
def list_experiments(schema: bool) -> None:
    """Name the experiments that `run` knows, with the original's section and their arms.

    Editors complete and check a TOML file whose first line is `#:schema` and the path or address
    of what --schema prints.
    """
    from mnist_keras.experiments.experiment import built_in, json_schema, load

    if schema:
        click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
        return
    for name, path in built_in().items():
        experiment = load(path)
        arms = ", ".join(arm.name for arm in experiment.arms)
        click.echo(f"{name:<16}{experiment.title} (section {experiment.section}): {arms}")
