"""A task of lm-evaluation-harness as a benchmark: its own items, prompts, filters and metrics.

The harness asks; this program answers, with the model that it trained. So items are right and wrong
exactly as the harness says. It is the extra `lmeval`, and is imported only where a study has such a
task.
"""

import hashlib
import inspect
import json
from collections.abc import Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any, Self

from lorastudy.config.benchmarks import Benchmark
from lorastudy.data.sources import offline_libraries
from lorastudy.errors import ConfigError, InputError
from lorastudy.evaluate.pairs import TokenPair
from lorastudy.evaluate.protocols import SizedProtocol
from lorastudy.model.generation_settings import read_generation_settings
from lorastudy.model.tokenizer import Tokenizer
from lorastudy.run.harness_loading import load_task, naming
from lorastudy.run.harness_model import (
    Answering,
    HarnessModel,
    StandIn,
    as_harness_has_it,
    encode_choices,
)
from lorastudy.run.harness_settings import (
    read_generation,
    refuse_perplexity,
    refuse_settings,
)
from lorastudy.run.tasks import AskedModel, AskedText, ScoredItems, TaskItems
from lorastudy.store.counts import TextCounts
from lorastudy.store.document_sums import ItemRecord
from lorastudy.store.places import Places

_ROUGH_POSITIONS = 256  # tokens of an item, for predictions of time
_FEWSHOT_SEED = 1234  # that of the harness
_N_TRIED = 2  # items whose judgement is tried before there is a model


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

    def list_asked(self) -> tuple[tuple[AskedText, ...], ...]:
        """What the model reads for every item, in their order."""
        requests = self._list_requests()
        if self.task.OUTPUT_TYPE == "generate_until":
            return tuple((self._ask_to_write(request),) for (request,) in requests)
        pairs = iter(self._encode(requests))
        return tuple(
            tuple(
                AskedText(
                    place=self._place(r.doc_id)
                    + (f", choice {number} of {len(item)}" if len(item) > 1 else ""),
                    read=(pair := next(pairs)),
                    n_cut=max(0, len(pair.ids) - 1 - self.protocol.length),
                    is_right=self._is_right(r),
                )
                for number, r in enumerate(item, start=1)
            )
            for item in requests
        )

    def refuse_unfit(self) -> None:
        """Check that the model can answer every item, and that an answer is right or wrong.

        Raises:
            ConfigError: Generation has settings that are not supported, or the metric is not
                between 0 and 1 for every item.
            InputError: A choice has no token of its own, or more than the model reads; or the
                harness fails.
        """
        requests = self._list_requests()
        if self.task.OUTPUT_TYPE != "generate_until":
            self._encode(requests)
        else:
            for request in (r for item in requests for r in item):
                read_generation(self.name, dict(request.args[1]), self.protocol.length)
        with redirect_stderr(StringIO()):
            self.first(_N_TRIED)._judge(StandIn())

    def _encode(self, requests: list[list[Any]]) -> list[TokenPair]:
        choices = [request for item in requests for request in item]
        return encode_choices(self.name, choices, self.tokenizer, self.protocol.length)

    def _list_requests(self) -> list[list[Any]]:
        """The requests of every item, with the solved examples that `answer` will have."""
        self.task.set_fewshot_seed(seed=_FEWSHOT_SEED)
        with naming(self.name), redirect_stderr(StringIO()):  # it shows its progress there
            self.task.build_all_requests(limit=self.n_units)
        found: dict[int, list[Any]] = {}
        for request in self.task.instances:
            found.setdefault(request.doc_id, []).append(request)
        return [found[document] for document in sorted(found)]

    def _ask_to_write(self, request: Any) -> AskedText:
        asked = read_generation(self.name, dict(request.args[1]), self.protocol.length)
        (ids,) = self.tokenizer.encode_as_configured([request.args[0]])
        return AskedText(
            place=self._place(request.doc_id),
            read=TokenPair(tuple(ids), len(ids)),
            n_cut=max(0, len(ids) - (self.protocol.length - asked.n_new)),
            answer=str(self.task.doc_to_target(request.doc)),
        )

    def _is_right(self, request: Any) -> bool:
        """Whether the task says that this choice is the right one, or one of them."""
        if self.task.OUTPUT_TYPE == "loglikelihood":
            return True
        is_asked_in_turn = getattr(self.task, "multiple_input", 0)  # prompts differ, not choices
        read = self.task.doc_to_text if is_asked_in_turn else self.task.doc_to_target
        gold = read(request.doc)
        if isinstance(gold, str):
            return bool(str(request.args[1]).strip() == gold.strip())
        return request.idx in gold if isinstance(gold, list) else bool(request.idx == gold)

    def _place(self, document: int) -> str:
        return f"{self.name}, document {document}"

    def first(self, n: int) -> Self:
        """The first `n` items alone."""
        return replace(self, n_documents=min(n, self.n_documents))

    def answer(self, model: AskedModel) -> ScoredItems:
        """What the model answers to every item, and what the harness says of it."""
        answering = HarnessModel(
            task=self.name,
            scorer=model.scorer,
            tokenizer=self.tokenizer,
            length=self.protocol.length,
            device=model.device,
            poll=model.poll,
            team=model.team,
        )
        items, metric = self._judge(answering)
        return ScoredItems(items, answering.n_tokens, metric)

    def _judge(self, answering: Answering) -> tuple[tuple[ItemRecord, ...], str]:
        """The answers that are given to every item as the harness judges them, and its metric."""
        from lm_eval.evaluator import evaluate

        self.task.set_fewshot_seed(seed=_FEWSHOT_SEED)
        with naming(self.name):
            found = evaluate(
                as_harness_has_it(answering),
                {"tasks": {self.name: self.task}, "groups": {}, "group_map": {}},
                limit=self.n_units,
                bootstrap_iters=0,
                log_samples=True,
            )
        samples = sorted(found["samples"][self.name], key=lambda sample: sample["doc_id"])
        filters = list(dict.fromkeys(sample["filter"] for sample in samples))
        name, chosen = self.choose_metric(list(self.task.aggregation()), filters)
        items = [self._record(sample, name) for sample in samples if sample["filter"] == chosen]
        return tuple(items), f"{name},{chosen}"

    def choose_metric(self, metrics: Sequence[str], filters: Sequence[str]) -> tuple[str, str]:
        """The metric and the filter that are named, or else the first ones of the task.

        Raises:
            ConfigError: The task does not have what is named, or lower is better.
        """
        name, _, chosen = (self.metric or metrics[0]).partition(",")
        for kind, wanted, known in (("metric", name, metrics), ("filter", chosen, filters)):
            if wanted and wanted not in known:
                raise ConfigError(
                    f"task {self.name} has no {kind} {wanted!r}; it has "
                    f"{', '.join(map(repr, known))}. "
                    "Name one of them in the benchmark's metric."
                )
        if not self.task.higher_is_better().get(name, True):
            raise ConfigError(
                f"task {self.name}: of the metric {name!r}, lower is better, and a benchmark needs "
                "one of which higher is better. Name another metric."
            )
        return name, chosen or filters[0]

    def _record(self, sample: dict[str, Any], metric: str) -> ItemRecord:
        place, value = self._place(sample["doc_id"]), sample.get(metric)
        if not isinstance(value, bool | int | float) or not 0 <= float(value) <= 1:
            raise ConfigError(
                f"{place}: the metric {metric!r} is {value!r}, and a benchmark needs one between 0 "
                "and 1 for every item. Name another metric."
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
    benchmark: Benchmark,
    protocol: SizedProtocol,
    tokenizer: Tokenizer,
    places: Places,
    base: Path,
) -> HarnessItems:
    """The task that a benchmark names, for the model in the folder `base`.

    A YAML file is sought from the folder of the study file.

    Raises:
        ConfigError: The extra is not installed; or the task does not exist, is a group, has no such
            metric, or cannot be carried out.
        InputError: Its data cannot be read.
    """
    assert benchmark.task is not None, "config requires it here"
    with offline_libraries(places.offline):
        name, task = load_task(benchmark.task, places.base, benchmark.num_fewshot)
        with naming(name):
            documents = list(task.eval_docs)[: benchmark.limit]
    if not documents:
        raise InputError(f"task {name} has no document. Choose another task or split.")
    parts = [documents, task.dump_config(), benchmark.metric]
    text = json.dumps(parts, sort_keys=True, default=_as_text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    items = HarnessItems(
        protocol=protocol,
        tokenizer=tokenizer,
        digest=digest,
        name=name,
        task=task,
        metric=benchmark.metric,
        n_documents=len(documents),
    )
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        raise refuse_perplexity(name)
    filters = [each["name"] for each in task.config.filter_list or [{"name": "none"}]]
    items.choose_metric(list(task.aggregation()), filters)
    if task.OUTPUT_TYPE == "generate_until":
        read_generation(name, task.config.generation_kwargs or {}, protocol.length)
        refuse_settings("the base model", read_generation_settings(base))
    return items


def _as_text(value: object) -> str:
    """The source of functions and classes; as texts, functions differ between processes."""
    if callable(value):
        with suppress(TypeError, OSError):
            return inspect.getsource(value)
    return str(value)
