"""A task of lm-evaluation-harness as a benchmark: its own items, prompts, filters and metrics.

The harness asks; this program answers, with the model that it trained. So items are right and wrong
exactly as the harness says. It is the extra `lmeval`, and is imported only where a study has such a
task.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch

from lorastudy.config.benchmarks import Benchmark
from lorastudy.data.sources import offline_libraries
from lorastudy.errors import ConfigError, InputError, UserError, reason_of, show_names
from lorastudy.evaluate.pairs import encode_pairs, score_pairs
from lorastudy.evaluate.protocols import SizedProtocol
from lorastudy.evaluate.writing import write_continuations
from lorastudy.machine.team import ALONE, Team
from lorastudy.model.sharing import AnyScorer
from lorastudy.model.tokenizer import Tokenizer
from lorastudy.run.tasks import ScoredItems, TaskItems
from lorastudy.store.counts import TextCounts
from lorastudy.store.places import Places
from lorastudy.store.records import ItemRecord

_NEW_TOKENS = 256  # as the harness generates where a task does not say
_ROUGH_POSITIONS = 256  # tokens of an item, for predictions of time
_FEWSHOT_SEED = 1234  # that of the harness
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class HarnessItems(TaskItems):
    """The items of a task of the harness, all of them or the first few."""

    name: str
    task: Any  # lm_eval.api.task.Task
    metric: str | None  # "acc_norm" or "exact_match,strict-match"; None: the task's first
    n_documents: int

    @property
    def n_units(self) -> int:
        """Items."""
        return self.n_documents

    @property
    def text(self) -> TextCounts:
        """How many items there are; the harness makes their prompts only when it asks."""
        return TextCounts(n_documents=self.n_documents, n_tokens=0, n_dropped=0, n_unknown=0)

    @property
    def n_positions(self) -> int:
        """Tokens that are read or may be generated, roughly."""
        return self.n_units * _ROUGH_POSITIONS

    @property
    def n_steps(self) -> int:
        """How often the model runs, roughly."""
        return self.n_units

    def first(self, n: int) -> Self:
        """The first `n` items alone."""
        return replace(self, n_documents=min(n, self.n_documents))

    def answer(
        self,
        scorer: AnyScorer,
        device: torch.device,
        poll: Callable[[], None] = lambda: None,
        team: Team = ALONE,
    ) -> ScoredItems:
        """What the model answers to every item, and what the harness says of it."""
        from lm_eval.evaluator import evaluate

        length = self.protocol.length
        model = _Model(scorer, self.tokenizer, length, device, poll, team)
        with _naming(self.name):
            found = evaluate(
                model.as_harness_has_it(),
                {"tasks": {self.name: self.task}, "groups": {}, "group_map": {}},
                limit=self.n_units,
                bootstrap_iters=0,
                log_samples=True,
            )
        samples = sorted(found["samples"][self.name], key=lambda sample: sample["doc_id"])
        items, metric = [], None
        for sample in samples:
            metric = metric or self._choose_metric(sample)
            name, _, chosen = metric.partition(",")
            if sample["filter"] == chosen:
                items.append(self._record(sample, name))
        return ScoredItems(tuple(items), model.n_tokens, metric)

    def _choose_metric(self, sample: dict[str, Any]) -> str:
        name, _, chosen = (self.metric or sample["metrics"][0]).partition(",")
        if name not in sample["metrics"]:
            raise ConfigError(
                f"task {self.name} has no metric {name!r}; it has "
                f"{show_names(sample['metrics'])}. Name one of them as the benchmark's metric."
            )
        return f"{name},{chosen or sample['filter']}"

    def _record(self, sample: dict[str, Any], metric: str) -> ItemRecord:
        place, value = f"{self.name}, document {sample['doc_id']}", sample[metric]
        is_share = isinstance(value, bool | int | float) and 0 <= float(value) <= 1
        if not is_share or not self.task.higher_is_better().get(metric, True):
            raise ConfigError(
                f"{place}: the metric {metric!r} is {value!r}, and a benchmark needs one between 0 "
                "and 1 for every item, of which higher is better. Name another metric."
            )
        answers = sample["filtered_resps"]
        texts = [answer for answer in answers if isinstance(answer, str)]
        nats = [-float(a[0]) for a in answers if isinstance(a, tuple | list) and len(a) == 2]
        asked = sample["arguments"]
        likeliest = asked[min(range(len(nats)), key=nats.__getitem__)][1] if nats else ""
        return ItemRecord(
            place=place,
            prompt=str(asked[0][0]),
            answer=str(sample["target"]),
            text=texts[0] if texts else str(likeliest),
            right=float(value),
            nats=tuple(nats),
        )


def prepare_harness_items(
    benchmark: Benchmark, protocol: SizedProtocol, tokenizer: Tokenizer, places: Places
) -> HarnessItems:
    """The task that a benchmark names; a YAML file is sought from the folder of the study file.

    Raises:
        ConfigError: The extra is not installed, or the task does not exist or is a group.
        InputError: Its data cannot be read.
    """
    assert benchmark.task is not None, "config requires it here"
    with offline_libraries(places.offline):
        name, task = _load_task(benchmark.task, places.base, benchmark.num_fewshot)
        with _naming(name):
            documents = list(task.eval_docs)[: benchmark.limit]
    if not documents:
        raise InputError(f"task {name} has no document. Choose another task or split.")
    parts = [documents, task.dump_config(), benchmark.metric]
    text = json.dumps(parts, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return HarnessItems(
        protocol=protocol,
        tokenizer=tokenizer,
        digest=digest,
        name=name,
        task=task,
        metric=benchmark.metric,
        n_documents=len(documents),
    )


def _load_task(named: str, base: Path, num_fewshot: int | None) -> tuple[str, Any]:
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ConfigError(
            "tasks of lm-evaluation-harness need the extra `lmeval`: "
            "pip install 'lorastudy[lmeval]'."
        ) from error
    with _naming(named):
        is_file = named.endswith((".yaml", ".yml"))
        manager = TaskManager(include_defaults=not is_file)
        found = manager.load([str(base / named) if is_file else named])["tasks"]
        if len(found) != 1:
            raise ConfigError(
                f"task {named!r} is a group of {len(found)} tasks. Name each of them as a "
                "benchmark of its own."
            )
        ((name, task),) = found.items()
        if num_fewshot is not None:
            task.set_config(key="num_fewshot", value=num_fewshot)
        task.set_fewshot_seed(seed=_FEWSHOT_SEED)
    return name, task


@contextmanager
def _naming(task: str) -> Iterator[None]:
    """Name the task in errors of the harness, which are of many kinds."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise InputError(
            f"task {task}: lm-evaluation-harness says: {reason_of(error)}. Look at the task, and "
            "whether its data can be reached."
        ) from error


class _Model:
    """Answers the requests of the harness, as its own HFLM does."""

    def __init__(
        self,
        scorer: AnyScorer,
        tokenizer: Tokenizer,
        length: int,
        device: torch.device,
        *others: Any,
    ) -> None:
        self._scorer, self._tokenizer = scorer, tokenizer
        self._length, self._device = length, device
        self._poll, self._team = others
        self.n_tokens = 0  # scored or generated so far

    def as_harness_has_it(self) -> Any:
        """The same as an object of the harness' own class of models."""
        from lm_eval.api.model import LM

        def call(name: str) -> Callable[..., Any]:
            return lambda _, requests, **__: getattr(self, name)(requests)

        names = ("loglikelihood", "loglikelihood_rolling", "generate_until")
        methods = {name: call(name) for name in names}
        return type("LorastudyModel", (LM,), methods)()

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """The log-likelihood of each continuation, and whether it is the greedy one."""
        pairs = encode_pairs([request.args for request in requests], self._tokenizer)
        unfit = [n for pair in pairs if not 1 <= (n := pair.n_targets) <= self._length]
        if unfit:
            raise InputError(
                f"a choice has {unfit[0]:,} tokens, and the model reads 1 to {self._length:,}."
            )
        scores = score_pairs(
            self._scorer,
            pairs,
            length=self._length,
            end_id=self._tokenizer.end_id,
            device=self._device,
            poll=self._poll,
            team=self._team,
        )
        self.n_tokens += scores.n_scored
        found = zip(scores.nats.tolist(), scores.is_greedy.tolist(), strict=True)
        return [(-nats, is_greedy) for nats, is_greedy in found]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Not for tasks: perplexities of texts have protocols of their own."""
        raise ConfigError(
            "this task measures a perplexity, and not right answers. Use a protocol such as "
            "lm-eval-wikitext or document on its texts."
        )

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The text that is generated greedily after each context, before the first stop."""
        found: dict[int, str] = {}
        by_settings: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            settings = json.dumps(request.args[1], sort_keys=True, default=str)
            by_settings.setdefault(settings, []).append(place)
        for places in by_settings.values():
            contexts = [requests[place].args[0] for place in places]
            texts = self._generate(contexts, dict(requests[places[0]].args[1]))
            found |= zip(places, texts, strict=True)
        return [found[place] for place in range(len(requests))]

    def _generate(self, contexts: list[str], settings: dict[str, Any]) -> list[str]:
        if settings.get("do_sample") or settings.get("temperature"):
            raise ConfigError("this task samples its answers; only greedy generation is supported.")
        given = settings.get("until") or []
        stops = [given] if isinstance(given, str) else [stop for stop in given if stop]
        n_new = next((int(settings[key]) for key in _LENGTHS if settings.get(key)), _NEW_TOKENS)
        if n_new >= self._length:
            raise ConfigError(
                f"this task generates {n_new:,} tokens, and the model reads {self._length:,}."
            )
        prompts = self._tokenizer.encode_as_configured(contexts)
        kept = [tuple(ids[-(self._length - n_new) :]) for ids in prompts]
        found = write_continuations(
            self._scorer,
            self._tokenizer,
            kept,
            max_new_tokens=n_new,
            stops=stops,
            end_ids=frozenset({self._tokenizer.end_id}),
            device=self._device,
            poll=self._poll,
        )
        self.n_tokens += sum(each.n_tokens for each in found)
        return [each.text for each in found]
