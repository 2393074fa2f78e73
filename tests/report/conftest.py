"""One report of the paper's size for the tests that look at it."""

from pathlib import Path

import pytest

from lorastudy.analysis.findings import make_findings
from lorastudy.config.study_file import preset_text
from lorastudy.report.build import write_report
from support.made_results import ARMS, make_paper_results, write_sums


@pytest.fixture(scope="session")
def paper_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study of the paper's arms with 3 seeds and 3 learning rates."""
    folder = tmp_path_factory.mktemp("paper-study")
    (folder / "study.yaml").write_text(preset_text("paper-sound"))
    write_sums(folder, make_paper_results(), lambda arm: ARMS.index(arm) / 100)
    return write_report(make_findings(make_paper_results(), folder), folder)
