"""Which GPUs a run gets, and what the options of teams mean."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from lorastudy.cli.options import choose_team
from lorastudy.config.models import Training
from lorastudy.errors import ConfigError
from lorastudy.launch.assignment import TeamOptions
from lorastudy.launch.local import share_gpus
from lorastudy.launch.torchrun import torchrun_command
from lorastudy.run.setup import refuse_team
from support.command_line import call
from support.tiny_arms import FULL


def test_every_run_has_gpus_of_its_own_as_far_as_they_go_round() -> None:
    assert [share_gpus(("4", "5"), slot, 1) for slot in range(3)] == [("4",), ("5",), ("4",)]
    four = ("0", "1", "2", "3")
    assert [share_gpus(four, slot, 2) for slot in range(2)] == [("0", "1"), ("2", "3")]
    assert share_gpus((), 0, 1) == ()
    assert share_gpus(("0",), 0, 2) == ("0",)  # torch then says that there is no second one


def test_a_team_has_as_many_processes_as_gpus_unless_told() -> None:
    assert choose_team("torchrun", None, None, n_gpus=4) == TeamOptions(4, "ddp")
    assert choose_team("torchrun", 2, "fsdp2", n_gpus=4) == TeamOptions(2, "fsdp2")
    assert choose_team("processes", None, None, n_gpus=4) is None


def test_more_processes_than_gpus_are_refused() -> None:
    with pytest.raises(ConfigError, match="--nproc 2, or --device cpu"):
        choose_team("torchrun", 3, "ddp", n_gpus=2)


@pytest.mark.parametrize(
    ("size", "changes", "advice"),
    [(1, {}, None), (2, {}, None), (3, {}, "2 rows cannot be shared by 3"),
     (1, {"implementation": "compiled"}, None), (2, {"implementation": "compiled"}, "use fast")],
)  # fmt: skip
def test_what_a_team_cannot_train_is_refused(
    size: int, changes: dict[str, Any], advice: str | None
) -> None:
    training = Training(epochs=1, rows_per_step=4, micro_batch=2, **changes)
    with pytest.raises(ConfigError, match=advice) if advice else nullcontext():
        refuse_team(size, training)


def test_a_team_does_not_round_weights_stochastically() -> None:
    training = Training(epochs=1, rows_per_step=4, micro_batch=2)
    arm = FULL.model_copy(update={"trained_weights": "bfloat16-stochastic"})
    refuse_team(1, training, FULL, arm)
    with pytest.raises(ConfigError, match=r"'full': trained_weights.*Use float32 for a team"):
        refuse_team(2, training, FULL, arm)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
@pytest.mark.parametrize(
    ("values", "advice"),
    [("training.optimizer.name=adamw-8bit", "Use --strategy ddp, or adamw"),
     ("arms.lora-1.base_weights=nf4", "Use --strategy ddp, or bfloat16")],
)  # fmt: skip
def test_what_cannot_be_divided_is_refused_before_a_folder_is_started(
    values: str, advice: str, strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("bitsandbytes")

    def start(*_: object, **__: object) -> None:
        raise ConfigError("the study would start here")

    monkeypatch.setattr("lorastudy.study.conduct.start_or_continue", start)
    team = ("--launch", "torchrun", "--nproc", 2, "--device", "cpu", "--strategy", strategy)
    answer = call("run", "demo", "--out", tmp_path / "s", *team, "--set", values)
    divided = f"cannot be divided among processes. {advice}"
    assert answer.code == 2
    assert {"ddp": "the study would start here", "fsdp2": divided}[strategy] in answer.err


@pytest.mark.parametrize(
    ("launch", "n", "strategy", "advice"),
    [
        ("processes", 2, None, "--launch torchrun"),
        ("processes", None, "ddp", "--jobs"),
        ("torchrun", None, "ddp", "--nproc 2"),
    ],
)
def test_options_that_do_nothing_are_refused(
    launch: str, n: int | None, strategy: str | None, advice: str
) -> None:
    with pytest.raises(ConfigError, match=advice):
        choose_team(launch, n, strategy, n_gpus=0)


def test_torchrun_starts_the_command_of_every_engine(tmp_path: Path) -> None:
    command = torchrun_command(tmp_path, "full-s0", TeamOptions(2, "fsdp2"), ("--threads", "1"))
    assert command[1:6] == ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert command[6:11] == ("-m", "lorastudy", "run-one", str(tmp_path), "full-s0")
    assert command[11:] == ("--while-input-is-open", "--strategy", "fsdp2", "--threads", "1")
