"""Numbers and tables as text."""

from collections.abc import Iterator, Sequence

from mnist_keras._foundations.files import escaped


def percent(
    share: float,
    interval: tuple[float, float],
    *,
    spread: float | None = None,
    digits: int = 2,
    unit: str = "",
) -> str:
    """Return a share in percent with its interval, whose bounds get one decimal.

    All numbers are given between 0 and 1. The standard deviation `spread` stands behind the share
    if there is one, and the unit between the share and the brackets.

    Example:

    >>> percent(0.92, (0.8501, 0.9589), spread=0.02)
    '92.00 ± 2.00 [85.0, 95.9]'
    """
    low, high = interval
    plus_minus = "" if spread is None else f" ± {100 * spread:.{digits}f}"
    return f"{100 * share:.{digits}f}{plus_minus}{unit} [{100 * low:.1f}, {100 * high:.1f}]"


def markdown_table(table: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table whose columns also line up in a terminal.

    The first row is the header. The first column is aligned to the left, the others to the right.
    """
    # Not by tabulate: it escapes no "|", marks the first column too, and widens short headers.
    cells = [[escaped(cell).replace("|", "\\|") for cell in row] for row in table]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rules = ["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]
    lines = [
        " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells
    ]
    yield f"| {lines[0]} |"
    yield f"|{'|'.join(rules)}|"
    yield from (f"| {line} |" for line in lines[1:])
