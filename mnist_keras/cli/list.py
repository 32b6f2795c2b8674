"""`mnist-keras list`: name the experiments, or describe their files."""

import json
import math
import shutil
import textwrap

import click

from mnist_keras.cli import options


@click.command("list", epilog=options.example("mnist-keras list"))
@click.option(
    "--schema", is_flag=True, help="Print the JSON Schema of an experiment's file instead."
)
def list_experiments(schema: bool) -> None:
    """Name the experiments that `run` knows, with their arms.

    Editors complete and check a TOML file whose first line is `#:schema` and the path or address
    of what --schema prints.
    """
    from mnist_keras.experiments.experiment import built_in, json_schema, load
    from mnist_keras.experiments.plan import plan
    from mnist_keras.experiments.report.tables import title

    if schema:
        click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
        return
    width = shutil.get_terminal_size().columns
    for name, path in built_in().items():
        experiment = load(path)
        runs = plan([arm.settings for arm in experiment.arms], [0])
        minutes = math.ceil(sum(run.expected_seconds for run in runs) / 60)
        arms = " · ".join(arm.name for arm in experiment.arms)
        for indent, said in (
            ("", f"{name}: {title(experiment)}"),
            ("  ", f"{len(experiment.arms)} arms, about {minutes} min a seed on two cores: {arms}"),
        ):
            click.echo(textwrap.fill(said, width, initial_indent=indent, subsequent_indent="  "))
