"""What the records of a study say, computed once for all tables, figures and the page.

    results.json            -> arms, rates, memory kind
    evaluations/*.json      -> comparisons -> changes, fronts, answers
    other files of the runs -> evidence    -> doubts, fronts
    study.yaml              -> study       -> margin, question, answers
    decisions.jsonl         -> decisions   -> question, comparisons
    explanations/*.json     -> explanations

A report uses only these findings, so that no two of its parts can disagree.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lorastudy.analysis.answers import Answer, answer_claims
from lorastudy.analysis.budget import SharedBudget, measure_budget
from lorastudy.analysis.compare import compare_study
from lorastudy.analysis.evidence import Evidence, find_doubts, read_evidence
from lorastudy.analysis.explanations import ArmExplanation, read_explanations
from lorastudy.analysis.forgetting import Change, measure_changes
from lorastudy.analysis.fronts import Front, find_fronts
from lorastudy.analysis.looks import EVERY_RUN
from lorastudy.analysis.memory_parts import ArmMemory, compare_memory
from lorastudy.analysis.padding import TextShare, find_text_shares
from lorastudy.analysis.pairs import Comparison, choose_main
from lorastudy.analysis.question import Question, find_question
from lorastudy.analysis.rates import RateSummary, summarise_rates
from lorastudy.analysis.score_parts import SplitScore, split_answer_scores, split_padded_scores
from lorastudy.analysis.side_by_side import Samples, SideBySide, lay_side_by_side, read_samples
from lorastudy.analysis.summary import (
    ArmSummary,
    list_score_keys,
    memory_kind,
    reference_arm,
    summarise_arms,
)
from lorastudy.analysis.until_decided import read_looks
from lorastudy.config.models import EQUIVALENCE_MARGIN, Study
from lorastudy.store.collect import collect_results, read_own_file
from lorastudy.store.decisions import AskedQuestion, Entry, Plan, read_decisions
from lorastudy.store.folders import StudyFolder
from lorastudy.store.rates import best_validation
from lorastudy.store.records import StudyResults


@dataclass(frozen=True, slots=True)
class Findings:
    """The findings of one study; sequences are in the study's order."""

    results: StudyResults
    study: Study | None  # None: there is no study file
    margin: float  # of equivalence, nats per target
    question: Question | None  # None: the study declared none
    evidence: Evidence
    decisions: tuple[Entry, ...]  # of a study that runs until its question is decided; else none
    arms: tuple[ArmSummary, ...]
    reference: str | None  # the arm with which others are compared; None: no arm has finished
    memory_kind: str | None  # of peak memory; None: none was measured
    doubts: Mapping[str, tuple[str, ...]]  # reasons, for each arm whose timings are unreliable
    rates: tuple[RateSummary, ...]
    comparisons: tuple[Comparison, ...]  # one for each score
    changes: tuple[Change, ...]
    fronts: tuple[Front, ...]
    answer_scores: tuple[SplitScore, ...]  # of answers, split by class
    padded: tuple[SplitScore, ...]
    text_shares: tuple[TextShare, ...]
    answers: tuple[Answer, ...]
    samples: Samples | None  # None: the study has no prompts for samples
    side_by_side: tuple[SideBySide, ...]  # answers of all arms to some items of each task
    explanations: tuple[ArmExplanation, ...]  # of `lorastudy explain`
    memory: tuple[ArmMemory, ...]  # by part; arms whose prediction and measurement are known
    budget: SharedBudget | None  # that every arm had; None: every arm had the same epochs

    @property
    def main(self) -> tuple[Comparison, ...]:
        """One comparison for each benchmark, under its first protocol that scores text alone."""
        return choose_main(self.comparisons)

    @property
    def is_elsewhere(self) -> bool:
        """Whether the arms were trained by other programs, and are only scored here."""
        if self.study is not None:
            return self.study.data.is_elsewhere
        return any(run.method == "elsewhere" for run in self.results.runs)

    @property
    def is_by_answers(self) -> bool:
        """Whether right answers to validation items chose the best weights, and not the loss."""
        if self.study is not None:
            return self.study.data.best_by is not None
        best = map(best_validation, self.results.runs)
        return any(found is not None and found.accuracy is not None for found in best)

    def restrict(self, comparisons: Iterable[Comparison]) -> "Findings":
        """The same, limited to those about the scores of `comparisons` or about no score."""
        kept = {comparison.key for comparison in comparisons}
        return replace(
            self,
            rates=tuple(rate.restrict(kept) for rate in self.rates),
            comparisons=tuple(c for c in self.comparisons if c.key in kept),
            changes=tuple(c for c in self.changes if c.key in kept),
            fronts=tuple(front for front in self.fronts if front.key in kept),
            padded=tuple(p for p in self.padded if p.key in kept),
            answer_scores=tuple(s for s in self.answer_scores if s.key in kept),
            text_shares=tuple(share for share in self.text_shares if share.key in kept),
            answers=tuple(a for a in self.answers if a.key is None or a.key in kept),
            side_by_side=tuple(each for each in self.side_by_side if each.key in kept),
        )


def read_findings(folder: Path, *, with_bootstrap: bool = True) -> Findings:
    """The findings of the study in `folder`, from its run folders as they are now.

    `with_bootstrap=False` leaves out the bootstrap intervals of pairs, which only the tables of
    all pairs show and which take most of the time.

    Raises:
        ConfigError: It is not the folder of a study, or study.yaml was edited after the start.
        InputError: Runs of different tokenizers.
    """
    results = collect_results(StudyFolder(folder))
    return make_findings(results, folder, with_bootstrap=with_bootstrap)


def make_findings(
    results: StudyResults, folder: Path | None = None, *, with_bootstrap: bool = True
) -> Findings:
    """The findings of `results` and of the run folders and the study file in `folder`.

    Without a folder only the results are known, and differences have no interval.

    Raises:
        ConfigError: `study.yaml` exists but is not a study file.
    """
    arms, keys, kind = summarise_arms(results), list_score_keys(results), memory_kind(results)
    study = _read_study(folder)
    margin = study.margin if study else EQUIVALENCE_MARGIN
    decisions = () if folder is None else read_decisions(StudyFolder(folder))
    question = find_question(_find_asked(study, decisions), study, arms, keys, results.forgetting)
    evidence = read_evidence(results, folder)
    doubts = find_doubts(arms, evidence)
    comparisons = compare_study(
        arms,
        keys,
        folder,
        with_bootstrap=with_bootstrap,
        margin=margin,
        question=question,
        looks=read_looks(decisions, results.seeds) if decisions else (EVERY_RUN,),
    )
    changes = measure_changes(arms, comparisons, results.forgetting)
    return Findings(
        results=results,
        study=study,
        margin=margin,
        question=question,
        evidence=evidence,
        decisions=decisions,
        arms=arms,
        reference=reference_arm(arms),
        memory_kind=kind,
        doubts=doubts,
        rates=summarise_rates(results, arms, keys),
        comparisons=comparisons,
        changes=changes,
        fronts=find_fronts(arms, comparisons, changes, evidence, kind),
        padded=split_padded_scores(arms, keys),
        answer_scores=split_answer_scores(arms, keys),
        text_shares=find_text_shares(results, keys),
        answers=answer_claims(arms, comparisons, study, kind, doubts, margin=margin),
        samples=read_samples(arms, folder),
        side_by_side=lay_side_by_side(arms, keys, folder),
        explanations=read_explanations(arms, folder),
        memory=compare_memory(arms, evidence, kind),
        budget=measure_budget(arms, evidence, study),
    )


def _find_asked(study: Study | None, decisions: Iterable[Entry]) -> AskedQuestion | None:
    """The question that was declared, in the study file or when its looks were planned."""
    planned = (entry.question for entry in decisions if isinstance(entry, Plan))
    return next(planned, study.question if study else None)


def _read_study(folder: Path | None) -> Study | None:
    if folder is None or not StudyFolder(folder).study.is_file():
        return None
    return read_own_file(StudyFolder(folder))
