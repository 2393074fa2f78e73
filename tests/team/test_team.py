"""One run over several processes: the same losses, the same weights, and no hang."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed.tensor import DTensor

from lorastudy.errors import ConfigError
from lorastudy.machine.team import Team, join_team
from lorastudy.model.base import load_base
from lorastudy.model.scoring import make_scorer
from lorastudy.model.sharing import share_scorer
from lorastudy.store.checkpoints import list_checkpoints
from lorastudy.store.document_sums import DocumentSums
from lorastudy.store.folders import RunFolder
from lorastudy.store.lines import read_records
from lorastudy.store.records import EpochRecord, StepRecord, Strategy
from lorastudy.store.resuming import Resuming
from support.chats import write_rows
from support.teams import as_team, execute_as_team
from support.tiny_runs import (
    ARMS,
    CPU,
    KILLED,
    PAPER,
    SOUND,
    Case,
    assert_same_run,
    best_tensors,
    kill_at,
    make_study,
    stop_at,
    write_texts,
)

STRATEGIES = ("ddp", "fsdp2")
HELD: dict = {"arms": ({**ARMS["lora"], "base_weights": "bfloat16"},)}  # scored merged, too
SAMPLES = {"prompts": ("The sheep", "A bell rang", "Rain"), "max_new_tokens": 4}
UNEVEN = {  # 11 rows: the last micro-batch has two
    **SOUND,
    "epochs": 2,
    "rows_per_step": 6,
    "micro_batch": 3,
    # softmax cancels key biases, so their gradients are rounding, which AdamW must not blow up
    "optimizer": {"name": "adamw", "eps": 1e-6},
}


@pytest.fixture(scope="module")
def still_gpt2(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny GPT-2 without dropout, which transformers' own modules draw by member."""
    folder = tmp_path_factory.mktemp("still") / "gpt2"
    shutil.copytree(tiny_gpt2, folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({k: 0.0 if k.endswith("pdrop") else v for k, v in config.items()}))
    return folder


@pytest.fixture(scope="module")
def make_case(
    tiny_gpt2: Path, still_gpt2: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Case]:
    def make(training: dict = UNEVEN, arm: str = "lora", base: Path | None = None) -> Case:
        if base is None:
            is_reference = training.get("implementation") == "reference"
            base = still_gpt2 if is_reference else tiny_gpt2
        folder = tmp_path_factory.mktemp("case")
        arms = HELD if arm == "held" else {"arm": arm}
        study = make_study(base, training, samples=SAMPLES, **arms)
        return Case(study, write_texts(folder / "texts"), folder / "cache")

    return make


def assert_close_runs(one: RunFolder, other: RunFolder) -> None:
    """Losses to 1e-5, trained tensors to 1e-4, scores to 1e-5; counts are equal."""
    a, b = (read_records(run.steps, StepRecord) for run in (one, other))
    assert [(s.step, s.n_tokens) for s in a] == [(s.step, s.n_tokens) for s in b] and a
    assert [s.loss for s in a] == pytest.approx([s.loss for s in b], abs=1e-5)
    x, y = (read_records(run.epochs, EpochRecord) for run in (one, other))
    assert [e.validation_loss for e in x] == pytest.approx([e.validation_loss for e in y], abs=1e-5)
    tensors, others = best_tensors(one), best_tensors(other)
    assert tensors.keys() == others.keys() and tensors
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, others[name], rtol=0, atol=1e-4)
    assert scores_of(one) == pytest.approx(scores_of(other), abs=1e-5)


def scores_of(run: RunFolder) -> dict[str, float]:
    return {
        path.name: DocumentSums.model_validate_json(path.read_bytes()).evaluation.cross_entropy
        for path in run.evaluations.iterdir()
    }


@pytest.mark.parametrize(
    ("arm", "strategy", "implementation"),
    [
        *[(arm, strategy, "fast") for arm in ("held", "full") for strategy in STRATEGIES],
        ("full", "fsdp2", "reference"),
    ],
)
def test_two_processes_train_what_one_trains(
    arm: str,
    strategy: str,
    implementation: str,
    make_case: Callable[..., Case],
    tmp_path: Path,
) -> None:
    case = make_case({**UNEVEN, "implementation": implementation}, arm)
    alone, together = case.folder(tmp_path, "alone"), case.folder(tmp_path, "together")
    case.execute(alone)
    assert execute_as_team(case, together, 2, strategy) == [0, 0]
    assert_close_runs(together, alone)


def test_answers_are_trained_and_scored_by_two_processes_as_by_one(
    tiny_gpt2: Path, tmp_path: Path
) -> None:
    """Rows have few targets, of which one member may have more than the other."""
    pairs = [{"prompt": "of? " * (n % 4 + 1), "completion": "a" * (n + 1)} for n in range(11)]
    write_rows(tmp_path / "pairs.jsonl", pairs)
    source = {"path": "pairs.jsonl"}
    data = {"train": source, "validation": source, "rows": {"cut": "lines", "length": 48}}
    scored = ({"name": "pairs", **source, "protocols": ("answers",)},)
    study = make_study(tiny_gpt2, UNEVEN, "full", data=data, benchmarks=scored)
    case = Case(study, tmp_path, tmp_path / "cache")
    alone, together = case.folder(tmp_path, "alone"), case.folder(tmp_path, "together")
    case.execute(alone)
    assert execute_as_team(case, together, 2, "ddp") == [0, 0]
    assert_close_runs(together, alone)


def test_shares_parts_and_empty_hands_change_nothing(
    make_case: Callable[..., Case], tmp_path: Path
) -> None:
    """Three members, micro-batches of the last step with fewer rows, a budget below two rows.

    Layers are computed again in backward.
    """
    case = make_case({**UNEVEN, "token_budget": 60, "activation_checkpointing": True})
    alone, together = case.folder(tmp_path, "alone"), case.folder(tmp_path, "together")
    case.execute(alone)
    assert execute_as_team(case, together, 3, "fsdp2") == [0, 0, 0]
    assert_close_runs(together, alone)


def test_the_published_accumulation_is_the_same_in_a_team(
    make_case: Callable[..., Case], tmp_path: Path
) -> None:
    """Scored padding, means of micro-batches, a first group of one, left-over micro-batches."""
    changes = {"optimizer": UNEVEN["optimizer"], "activation_checkpointing": True}
    case = make_case({**PAPER, **changes})
    alone, together = case.folder(tmp_path, "alone"), case.folder(tmp_path, "together")
    case.execute(alone)
    assert execute_as_team(case, together, 2, "ddp") == [0, 0]
    assert_close_runs(together, alone)


def test_grouped_queries_and_a_tied_head_are_sharded(
    make_case: Callable[..., Case], tiny_llama: Path, tmp_path: Path
) -> None:
    case = make_case(UNEVEN, "full", tiny_llama)
    alone, together = case.folder(tmp_path, "alone"), case.folder(tmp_path, "together")
    case.execute(alone)
    assert execute_as_team(case, together, 2, "fsdp2") == [0, 0]
    assert_close_runs(together, alone)
    assert together.samples.read_text() == alone.samples.read_text()  # generated by all members


Restless = tuple[Case, Strategy, int, RunFolder]  # of a team: its strategy, size and run


@pytest.fixture(scope="module", params=[("ddp", "lora", 3), ("fsdp2", "full", 2)], ids=str)
def restless(
    request: pytest.FixtureRequest, tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory
) -> Restless:
    """A team whose members draw dropout, and its run when nothing happens."""
    strategy, arm, size = request.param
    parent = tmp_path_factory.mktemp("restless")
    case = Case(make_study(tiny_gpt2, UNEVEN, arm), write_texts(parent / "texts"), parent / "cache")
    folder = case.folder(parent, "whole")
    assert execute_as_team(case, folder, size, strategy) == [0] * size
    return case, strategy, size, folder


def test_a_signal_to_one_member_stops_all_at_a_checkpoint(
    restless: Restless, tmp_path: Path
) -> None:
    case, strategy, size, whole = restless
    folder = case.folder(tmp_path, "stopped")
    last = size - 1
    codes = execute_as_team(
        case, folder, size, strategy, handlers={last: stop_at("train:after-forward", 5)}
    )
    assert codes == [75] * size
    assert folder.read_result() is None and list_checkpoints(folder.checkpoints)
    assert execute_as_team(case, folder, size, strategy) == [0] * size
    assert_same_run(folder, whole)


def test_a_member_that_dies_ends_the_run_which_goes_on_later(
    restless: Restless, tmp_path: Path
) -> None:
    case, strategy, size, whole = restless
    folder = case.folder(tmp_path, "lost")
    last = size - 1
    codes = execute_as_team(
        case, folder, size, strategy, handlers={last: kill_at("train:after-forward", 7)}
    )
    assert codes == [75] * last + [KILLED]
    failure = folder.read_result()
    assert failure is not None and "another process of this run ended" in str(failure.reason)
    assert execute_as_team(case, folder, size, strategy) == [0] * size
    assert_same_run(folder, whole)


def test_another_number_of_processes_is_another_environment(
    restless: Restless, tmp_path: Path
) -> None:
    case, strategy, size, _ = restless
    folder = case.folder(tmp_path, "moved")
    execute_as_team(case, folder, size, strategy, handlers={0: stop_at("train:after-forward", 5)})
    assert case.child(folder) == 6
    assert case.child(folder, resuming=Resuming(allow_drift=True)) == 0
    result = folder.read_result()
    assert result is not None and result.drift == (
        f"environment.strategy: '{strategy}' then, None now",
        f"environment.world_size: {size} then, 1 now",
    )


def test_a_loss_that_is_not_finite_for_one_is_so_for_all(
    make_case: Callable[..., Case], tmp_path: Path
) -> None:
    case = make_case().with_arm(alpha=1e38, learning_rates=(0.9,))
    folder = case.folder(tmp_path, "wild")
    assert execute_as_team(case, folder, 2, "ddp") == [4, 4]
    assert folder.read_result().status == "diverged"


def test_more_processes_than_rows_at_once_are_refused(
    make_case: Callable[..., Case], tmp_path: Path
) -> None:
    folder = make_case().folder(tmp_path, "many")
    assert execute_as_team(make_case(), folder, 4, "ddp") == [2] * 4
    assert "training.micro_batch: 3 rows" in folder.read_result().reason


def test_fsdp2_holds_parts_and_ddp_does_not(still_gpt2: Path) -> None:
    def work(team: Team) -> None:
        network = load_base(still_gpt2, device=CPU)
        whole = sum(p.numel() for p in network.parameters())
        share_scorer(make_scorer(network, "float32"), team, CPU)
        parts = [p for p in network.parameters() if isinstance(p, DTensor)]
        held = sum(p.to_local().numel() for p in parts)
        assert held == pytest.approx(whole / 2, rel=0.01) if team.strategy == "fsdp2" else not parts

    for strategy in STRATEGIES:
        assert as_team(2, strategy, work) == [0, 0]


def test_members_add_and_agree(tmp_path: Path) -> None:
    def work(team: Team) -> None:
        numbers = np.array([1.5, 2.0]) * (team.member + 1)
        assert team.add(numbers).tolist() == [9.0, 12.0]
        assert numbers[0] == 1.5 * (team.member + 1)
        assert team.highest(np.array([team.member])).tolist() == [2]
        assert team.any(team.member == 1) and not team.any(False)

    assert as_team(3, "ddp", work) == [0, 0, 0]


def test_parts_are_dealt_out_equally_and_the_last_is_repeated() -> None:
    parts = ["a", "b", "c", "d"]
    dealt = [list(Team(member, 3, "ddp").deal(parts)) for member in range(3)]
    assert [[part for part, counts in own if counts] for own in dealt] == [["a", "d"], ["b"], ["c"]]
    assert {len(own) for own in dealt} == {2}
    assert list(Team().deal(parts)) == [(part, True) for part in parts]
    assert list(Team(1, 2, "ddp").deal([])) == []


def test_several_processes_without_a_strategy_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="--strategy ddp"), join_team(None):
        pass
