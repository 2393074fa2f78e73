"""`lorastudy.compare`: score models that other programs trained, with the report of a study."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from lorastudy.analysis.findings import make_findings
from lorastudy.api.results import Results, open_results
from lorastudy.config.references import Answering, find_benchmark, model_reference
from lorastudy.errors import UserError
from lorastudy.interrupts import StopFlag
from lorastudy.report.build import write_report
from lorastudy.store.collect import write_results
from lorastudy.store.folders import StudyFolder
from lorastudy.study.compare import (
    ScoringSettings,
    begin_comparison,
    describe_comparison,
    name_comparison,
    score_missing,
)
from lorastudy.study.open import OpenedStudy, stored_places

Names = str | Path | Sequence[str | Path]


def compare(
    base: str | Path,
    adapters: Mapping[str, Names],
    benchmark: Names,
    protocol: str | Sequence[str],
    *,
    out: str | Path | None = None,
    length: int = 350,
    limit: int | None = None,
    sample: int | None = None,
    column: str | None = None,
    max_new_tokens: int | None = None,
    stop: Sequence[str] | None = None,
    function: str | None = None,
    device: str = "auto",
    precision: str = "float32",
    mirror: str | Path | None = None,
    offline: bool = False,
) -> Results:
    """Score adapters or models from any trainer, as `lorastudy compare` does, and write the report.

    Args:
        base: Folder or hub id of the base model, which is the baseline.
        adapters: By name, the folders of an adapter or of a whole model, one per seed.
        benchmark: Names of presets' benchmarks; or files, folders or patterns of texts.
        protocol: Names such as "rows-text"; see docs/protocols.md.
        out: Folder of the comparison; by default studies/compare-NAME.
        length: Tokens of a row, for protocols of rows.
        limit: Score only this many documents, the first ones.
        sample: Score only this many random documents.
        column: The column that holds the text, in files that have columns; None: text.
        max_new_tokens: The most tokens of a generated answer; None: 64.
        stop: Texts before which a generated answer ends.
        function: Judge of own-function: module:function or file.py:function.
        device: auto, cpu or cuda.
        precision: float32 or bfloat16.
        mirror: Folder laid out like the hub, looked at before the cache and the hub.
        offline: Never ask the hub.

    Raises:
        StudyError: Names or settings cannot be used.
        lorastudy.errors.UserError: A model cannot be scored; the same call continues.
    """
    reference = model_reference(str(base))
    name = name_comparison(reference)
    folder = StudyFolder(Path(out) if out is not None else Path("studies") / name)
    protocols = (protocol,) if isinstance(protocol, str) else tuple(protocol)
    find = partial(find_benchmark, limit=limit, sample=sample, column=column)
    answering = Answering(max_new_tokens, stop, function)
    benchmarks = [find(str(one), protocols, answering=answering) for one in _list(benchmark)]
    study = describe_comparison(
        *(name, reference, {arm: _list(paths) for arm, paths in adapters.items()}, benchmarks),
        ScoringSettings(length=length, precision=precision),
    )
    places = stored_places(folder, None if mirror is None else Path(mirror), offline=offline)
    found = begin_comparison(OpenedStudy(study, folder, places), device)
    for result in score_missing(found, StopFlag()):
        if isinstance(result, UserError):
            raise result
    write_report(make_findings(write_results(folder), folder.path), folder.path)
    return open_results(folder.path)


def _list(names: Names) -> list[Path]:
    return [Path(name) for name in ([names] if isinstance(names, str | Path) else names)]
