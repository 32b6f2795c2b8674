"""Options made from the fields of a record: its types, bounds, defaults and descriptions."""

import pkgutil
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_origin

import click


def fields_command(
    place: str,
    left_out: Collection[str] = (),
    instead: Callable[[], dict[str, Any]] = dict,
    sections: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> type[click.Command]:
    """Return a class of commands that also take an option for each field of a record.

    They are made when the command's own help or one of them is asked for. Imported earlier, what
    checks the fields would slow the help of all commands.

    Args:
        place: Module and name of the record, as `"package.module:Name"`.
        left_out: Fields that get no option.
        instead: Returns types, by field, to take in place of the record's.
        sections: Headings in the help, each with the names of its parameters.
    """

    class FieldsCommand(click.Command):
        def get_params(self, ctx: click.Context) -> list[click.Parameter]:
            fields = pkgutil.resolve_name(place).model_fields
            kinds = {name: _plain(field.annotation) for name, field in fields.items()} | instead()
            own = super().get_params(ctx)
            made = [_option(n, f, kinds[n]) for n, f in fields.items() if n not in left_out]
            return [*own[:-1], *made, *own[-1:]]

        def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            shown = {p.name: line for p in self.get_params(ctx) if (line := p.get_help_record(ctx))}
            for heading, names in sections.items():
                with formatter.section(heading):
                    formatter.write_dl([shown.pop(name) for name in names])
            with formatter.section("Options"):
                formatter.write_dl(list(shown.values()))

    return FieldsCommand


def _option(name: str, field: Any, kind: Any) -> click.Option:
    said = " ".join((field.description or "").split())
    if field.default is not None:
        said += f" Default: {str(field.default).lower()}."
    flag = f"--{name.replace('_', '-')}"
    if kind is bool:
        flag += f"/--no-{name.replace('_', '-')}"
    elif get_origin(kind) is Literal:
        kind = click.Choice(get_args(kind))
    return click.Option([flag], type=kind, default=None, help=said)


def _plain(annotation: Any) -> Any:
    """Return a type without its bounds, and without `None`."""
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    if get_origin(annotation) in (Literal, None):
        return annotation
    return kinds[0] if get_origin(annotation) is Annotated else _plain(kinds[0])


def given(options: dict[str, Any], fields: Collection[str]) -> dict[str, Any]:
    """Take the options of some fields out of all options, and return those that were given."""
    taken = {name: options.pop(name) for name in fields if name in options}
    return {name: value for name, value in taken.items() if value is not None}
