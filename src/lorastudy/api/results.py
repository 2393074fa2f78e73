"""`lorastudy.open_results`: what a study found, as tables, sentences and models."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from lorastudy.analysis.choice import choose_run
from lorastudy.analysis.decision import Decision, at_margin, decide
from lorastudy.analysis.findings import Findings, read_findings
from lorastudy.analysis.limits import read_limits, read_margin
from lorastudy.report.page.headline import state_headline
from lorastudy.report.page.verdict import Statement, state_verdict, write_ending
from lorastudy.report.tables.html import render_html
from lorastudy.report.tables.table1 import build_table1
from lorastudy.study.open import open_folder
from lorastudy.units import write_count

if TYPE_CHECKING:
    from pandas import DataFrame

    from lorastudy.api.loading import LoadedModel

_STYLE = """
.lorastudy table { border-collapse: collapse; font-size: 90%; }
.lorastudy th, .lorastudy td { padding: 2px 8px; text-align: left; vertical-align: top; }
.lorastudy .right { text-align: right; }
.lorastudy thead th { border-bottom: 1px solid; }
.lorastudy .scroll { overflow-x: auto; }
.lorastudy .detail, .lorastudy .notes { opacity: 0.7; font-size: 90%; }
.lorastudy .warning { display: block; font-weight: normal; }
"""


@dataclass(frozen=True)
class Results:
    """What the folder of a study said when it was opened."""

    folder: Path
    findings: Findings

    @cached_property
    def runs(self) -> "DataFrame":
        """One row per run of the study, finished, failed or missing."""
        from lorastudy.api.frames import make_runs

        return make_runs(self.findings)

    @cached_property
    def epochs(self) -> "DataFrame":
        """One row per epoch of a run, with its losses in nats per target."""
        from lorastudy.api.frames import make_epochs

        return make_epochs(self.findings)

    @cached_property
    def scores(self) -> "DataFrame":
        """One row per run, benchmark and protocol."""
        from lorastudy.api.frames import make_scores

        return make_scores(self.findings)

    @cached_property
    def pairs(self) -> "DataFrame":
        """One row per score and pair of arms: first minus second, with its 95 % interval."""
        from lorastudy.api.frames import make_pairs

        return make_pairs(self.findings)

    @property
    def verdict(self) -> tuple[str, ...]:
        """The sentences of the report's verdict, the recommendation first; none without scores."""
        statements = self._statements
        if not statements:
            return ()
        sentences = [sentence for statement in statements for sentence in statement.sentences]
        return (state_headline(self.findings), *sentences)

    def decide(
        self,
        *,
        device_memory: str | float | None = None,
        time: str | float | None = None,
        size: str | float | None = None,
        margin: str | float | None = None,
        forget: str | float | None = None,
    ) -> Decision:
        """Which arm to take under limits, as `lorastudy decide` says it.

        Args:
            device_memory: Memory of a device, as "8GB" or in bytes.
            time: Time to train one run, as "1.5h" or in seconds.
            size: Stored weights, as "50MB" or in bytes.
            margin: Nats per token within which arms are as good; None: that of the study.
            forget: Nats per token above the base model on benchmarks for forgetting.

        Raises:
            StudyError: A limit is not such an amount, or the study cannot say who keeps it.
        """
        limits = read_limits(device_memory=device_memory, time=time, size=size, forget=forget)
        return decide(at_margin(self.findings, read_margin(margin)), limits)

    @property
    def _statements(self) -> tuple[Statement, ...]:
        return state_verdict(self.findings)

    def load(self, name: str, *, device: str = "cpu") -> "LoadedModel":
        """The model of an arm's best run, or of the run `name`, in evaluation mode.

        A PEFT model for LoRA, else a transformers model. Its tokenizer is `model.tokenizer`.

        Args:
            name: An arm such as "lora-2", its seed such as "lora-2-s0", or the id of a run.
            device: auto, cpu or cuda.

        Raises:
            StudyError: No run or arm has this name, or the run has not finished.
            lorastudy.errors.InputError: The base model was not found, or files are damaged.
        """
        from lorastudy.api.loading import load_model

        opened = open_folder(self.folder)
        return load_model(opened, choose_run(opened.folder, name).spec, device)

    def __repr__(self) -> str:
        results = self.findings.results
        done = sum(run.status == "done" for run in results.runs)
        n_runs = len(results.runs) + len(results.missing)
        lines = [
            f"{results.name} in {self.folder}: {done} of {write_count(n_runs, 'run')} done.",
            "",
        ]
        return "\n".join([*lines, *write_ending(self.findings, str(self.folder))]).strip()

    def _repr_html_(self) -> str:
        """Verdict and Table I for a notebook; needs no other file."""
        statements = Markup("").join(
            Markup("<dt><strong>{}</strong></dt><dd>{} <code>{}</code></dd>").format(
                statement.question,
                " ".join(statement.sentences),
                statement.command,
            )
            for statement in self._statements
        )
        headline = state_headline(self.findings) if statements else "There is no score yet."
        table = render_html(build_table1(self.findings))
        return str(
            Markup(
                '<div class="lorastudy"><style>{}</style><h3>{}</h3><p>{}</p><dl>{}</dl>{}</div>'
            ).format(Markup(_STYLE), self.findings.results.name, headline, statements, table)
        )


def open_results(folder: str | Path) -> Results:
    """Read the results of a study as they stand now; call it again to see later ones.

    Raises:
        StudyError: The folder is not the folder of a study.
    """
    path = Path(folder)
    return Results(path, read_findings(path, with_bootstrap=False))
