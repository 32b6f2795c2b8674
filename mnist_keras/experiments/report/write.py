"""Write the report of a results folder from its plan and records alone."""

from mnist_keras._foundations.files import write
from mnist_keras._foundations.pictures import encode, read_gallery
from mnist_keras.experiments.report import csv_json, figures, page, rows, tables
from mnist_keras.experiments.report.rows import Results
from mnist_keras.experiments.results_folder import ResultsFolder

# Folder of the pictures by `mnist-keras explain`, within that of the results.
EXPLANATIONS = "explanations"


def write_report(folder: ResultsFolder) -> Results:
    """Write tables, figures and the page anew from a folder's plan and records.

    The files are `tables.md`, `.csv`, `.tex` and `.json`, `costs.md`, one PNG for each figure, and
    `report.html`. Records with the same numbers give the same bytes of tables and figures. Costs
    differ from run to run, and the page shows them. It also shows the pictures that `explain` has
    drawn within the folder.

    Raises:
        FileError: If the folder has no plan, or cannot be written.
    """
    found, _ = folder.records()
    results = rows.results(folder.read_plan(), found)
    drawn = figures.all_figures(results)
    files = {
        "tables.md": tables.markdown(results).encode(),
        "tables.csv": csv_json.csv_text(results).encode(),
        "tables.tex": tables.latex(results).encode(),
        "tables.json": csv_json.json_text(results).encode(),
        "costs.md": tables.costs(results).encode(),
        "report.html": page.html(results, drawn, read_gallery(folder.path / EXPLANATIONS)).encode(),
    }
    files |= {f"{name}.png": encode(figure, "png") for name, figure in drawn.items()}
    for name, content in files.items():
        write(folder.path / name, content)
    return results
