"""`table`: print the results of a study."""

from typing import Annotated, Literal

import typer

from lorastudy.cli import options
from lorastudy.cli.options import AsJson, Padded, Plain, StudyDir
from lorastudy.store.folders import StudyFolder


def table(
    folder: StudyDir,
    format: Annotated[
        Literal["md", "csv", "latex", "json"] | None,
        typer.Option(help="Format for other programs; without it, a table for the terminal."),
    ] = None,
    padded: Padded = False,
    plain: Plain = False,
    as_json: AsJson = False,
) -> None:
    """Print the results: perplexities, parameters, seconds, memory.

    With --plain, print every arm minus the reference arm instead, with both kinds of intervals.
    """
    if as_json:
        format = "json"
    from lorastudy.analysis.findings import read_findings

    options.say_doubts(StudyFolder(folder))
    findings = read_findings(folder, with_bootstrap=False)
    if format is None:
        from lorastudy.cli.show import print_differences, print_results

        if plain:
            print_differences(findings)
        else:
            print_results(findings, with_padded=padded)
        return
    from lorastudy.report.build import render_differences, render_table

    print((render_differences if plain else render_table)(findings, format), end="")
