"""Controlled comparisons of fine-tuning methods for causal language models.

    import lorastudy as ls

    study = ls.load_study("demo")
    for event in ls.run(study):
        print(event)
    results = ls.open_results("studies/demo")

Names are imported when they are first used, so that `import lorastudy` is fast. Two of them,
`run` and `evaluate`, are also names of parts of this package: calling the part calls the function.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lorastudy.version import __version__

if TYPE_CHECKING:
    from lorastudy.api.checking import check
    from lorastudy.api.comparing import compare
    from lorastudy.api.evaluating import evaluate
    from lorastudy.api.facts import ArmFacts, CheckFacts
    from lorastudy.api.results import Results, open_results
    from lorastudy.api.running import StudyFinished, StudyStarted, run
    from lorastudy.api.study import Study, StudyError, load_study
    from lorastudy.study.progress import (
        DecisionTaken,
        EpochEnded,
        RunDisturbed,
        RunEnded,
        RunStarted,
        StepDone,
        Validated,
    )

_HOMES = {
    "ArmFacts": "api.facts",
    "CheckFacts": "api.facts",
    "DecisionTaken": "study.progress",
    "EpochEnded": "study.progress",
    "Results": "api.results",
    "RunDisturbed": "study.progress",
    "RunEnded": "study.progress",
    "RunStarted": "study.progress",
    "StepDone": "study.progress",
    "Study": "api.study",
    "StudyError": "api.study",
    "StudyFinished": "api.running",
    "StudyStarted": "api.running",
    "Validated": "study.progress",
    "check": "api.checking",
    "compare": "api.comparing",
    "evaluate": "api.evaluating",
    "load_study": "api.study",
    "open_results": "api.results",
    "run": "api.running",
}
_PARTS = ("run", "evaluate")  # packages that have the name of a function

__all__ = [
    "ArmFacts",
    "CheckFacts",
    "DecisionTaken",
    "EpochEnded",
    "Results",
    "RunDisturbed",
    "RunEnded",
    "RunStarted",
    "StepDone",
    "Study",
    "StudyError",
    "StudyFinished",
    "StudyStarted",
    "Validated",
    "__version__",
    "check",
    "compare",
    "evaluate",
    "load_study",
    "open_results",
    "run",
]


class _CallablePart(ModuleType):
    """A part of the package that stands for the function of the same name when it is called."""

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return _find(self.__name__.rpartition(".")[2])(*arguments, **keywords)


class _Package(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        """Make parts callable as the import system puts them into the package."""
        if name in _PARTS and isinstance(value, ModuleType):
            value.__class__ = _CallablePart
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def _find(name: str) -> Any:
    return getattr(import_module(f"lorastudy.{_HOMES[name]}"), name)


def __getattr__(name: str) -> Any:
    """A name of the API, imported now; see https://peps.python.org/pep-0562/."""
    if name in _PARTS:
        return import_module(f"lorastudy.{name}")
    if name in _HOMES:
        return _find(name)
    raise AttributeError(f"module 'lorastudy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
