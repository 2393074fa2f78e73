"""`report`: rebuild everything that is derived from the run folders."""

from lorastudy.cli import options
from lorastudy.cli.options import AsJson, Plain, StudyDir
from lorastudy.store.collect import write_results
from lorastudy.store.folders import StudyFolder


def report(folder: StudyDir, plain: Plain = False, as_json: AsJson = False) -> None:
    """Rebuild results.json, tables, figures and the page from the run folders."""
    from lorastudy.analysis.findings import make_findings
    from lorastudy.report.build import write_report

    options.say_doubts(StudyFolder(folder))
    results = write_results(StudyFolder(folder))
    page = write_report(make_findings(results, folder), folder, with_plain=plain)
    if as_json:
        options.print_json({"report": page})
    else:
        print(f"Report: {page}")
