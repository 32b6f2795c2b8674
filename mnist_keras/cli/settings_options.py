"""An option for each setting of a single network, made from the fields of `Settings`."""

from typing import Annotated, Any, Literal, get_args, get_origin

import click

# Settings of runs that no single network comes from.
_LEFT_OUT = (
    *("copies", "members", "views", "pretraining", "pretraining_epochs", "frozen"),
    *("self_training", "self_training_epochs", "self_training_rounds"),
)


class SettingsCommand(click.Command):
    """A command that also takes these options; they are made when its own help or it is asked for.

    Imported earlier, what checks the settings would slow the help of all commands.
    """

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the options of the settings after those of the command."""
        from mnist_keras.training.settings import NETWORKS, Settings

        options: list[click.Parameter] = []
        for name, field in Settings.model_fields.items():
            if name in _LEFT_OUT:
                continue
            said = [" ".join((field.description or "").split())]
            if field.default is not None:
                said.append(f"Default: {str(field.default).lower()}.")
            kind = _plain(field.annotation)
            flag = f"--{name.replace('_', '-')}"
            if kind is bool:
                flag += f"/--no-{name.replace('_', '-')}"
            elif name == "model":
                kind, said = click.Choice(NETWORKS), ["The network.", *said[1:]]
            elif get_origin(kind) is Literal:
                kind = click.Choice(get_args(kind))
            options.append(click.Option([flag], type=kind, default=None, help=" ".join(said)))
        return [*super().get_params(ctx)[:-1], *options, *super().get_params(ctx)[-1:]]


def _plain(annotation: Any) -> Any:
    """Return a type without its bounds, and without `None`."""
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    if get_origin(annotation) is not Literal and kinds:
        return _plain(kinds[0])
    if get_origin(annotation) is Annotated:
        return get_args(annotation)[0]
    return annotation
