"""Markdown on stdout: laid out on a terminal, within its width; as it is in a file or a pipe."""

import sys

import click


def show(markdown: str) -> None:
    """Print Markdown."""
    if not sys.stdout.isatty():
        click.echo(markdown, nl=False)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(markdown))
