"""Every command that uses a model refuses the same folders, with the name of the file."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import lorastudy
from lorastudy.errors import InputError
from lorastudy.store.hashes import write_hashes
from support.command_line import Answer, call, write_study
from support.forked_studies import call_study


@dataclass(frozen=True)
class Place:
    """A study file with its base model, and the finished study of one adapter in `out`."""

    folder: Path

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def run(self) -> Path:
        (run,) = (self.folder / "out" / "runs").iterdir()
        return run

    @property
    def adapter(self) -> Path:
        return self.run / "best"

    @property
    def text(self) -> tuple[object, ...]:
        return ("--benchmark", self.folder / "texts" / "test.txt", "--length", 24, "--offline")

    def seal(self) -> None:
        """Make the hashes of the run fit, so that only what its files say can be refused."""
        write_hashes(self.adapter)
        write_hashes(self.run)


def copy_place(place: Place, to: Path) -> Place:
    copy = Place(Path(shutil.copytree(place.folder, to)))
    found_at = copy.folder / "out" / ".places.json"
    found_at.write_text(json.dumps({**json.loads(found_at.read_text()), "base": str(to)}))
    return copy


@pytest.fixture(scope="module")
def sound(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("refusals")
    study = write_study(folder, Path("base"))
    shutil.copytree(tiny_gpt2, folder / "base")
    chosen = ("--arm", "lora", "--seed", 0, "--set", "training.epochs=1")
    answer = call_study("run", study, "--out", folder / "out", *chosen)
    assert answer.code == 0, answer.err
    return Place(folder)


@pytest.fixture
def place(sound: Place, tmp_path: Path) -> Place:
    return copy_place(sound, tmp_path / "copy")


def export(place: Place) -> Answer:
    place.seal()
    answer = call("export", place.folder / "out", place.run.name, "--to", place.folder / "new")
    assert not (place.folder / "new").exists() or not answer.code
    return answer


def evaluate(place: Place, *model: object) -> Answer:
    return call("evaluate", *model, *place.text, "--protocol", "rows-text", "--json")


def audit(place: Place, *model: object) -> Answer:
    return call("audit", *model, *place.text, "--json")


def run(place: Place) -> Answer:
    answer = call("run", place.folder / "study.yaml", "--out", place.folder / "again")
    assert not (place.folder / "again").exists()
    return answer


SCORING: dict[str, Callable[..., Answer]] = {"evaluate": evaluate, "audit": audit}
# what each command does with the adapter, and what with the base model
OF_ADAPTERS: dict[str, Callable[[Place], Answer]] = {
    "evaluate": lambda p: evaluate(p, p.base, "--adapter", p.adapter),
    "audit": lambda p: audit(p, p.base, "--adapter", p.adapter),
    "export": export,
}
OF_BASES: dict[str, Callable[[Place], Answer]] = {
    "check": lambda p: call("check", p.folder / "study.yaml"),
    "run": run,
    "evaluate": lambda p: evaluate(p, p.base),
    "audit": lambda p: audit(p, p.base),
    "export": export,
}


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def edit_adapter(place: Place, **values: object) -> None:
    edit(place.adapter / "adapter_config.json", **values)


def add_tensor(place: Place) -> None:
    path = place.adapter / "adapter_model.safetensors"
    save_file({**load_file(path), "surplus": torch.ones(2)}, path, metadata={"format": "pt"})


def pickle_weights(path: Path, name: str) -> None:
    torch.save(load_file(path), path.parent / name)
    path.unlink()


def spoil_weight(place: Place, value: float) -> None:
    path = place.base / "model.safetensors"
    tensors = load_file(path)
    tensors["transformer.h.1.mlp.c_fc.weight"][3, 5] = value
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})


# what is done to a copy of a sound place, and what is said
Damage = tuple[Callable[[Place], object], str]
ADAPTERS: dict[str, Damage] = {
    "changes no module": (lambda p: edit_adapter(p, peft_type="PROMPT_TUNING"), "PROMPT_TUNING"),
    "left unused": (lambda p: edit_adapter(p, target_modules=["h.0.attn.c_attn"]), "tensors"),
    "surplus": (add_tensor, "surplus"),
    "not finite": (lambda p: edit_adapter(p, lora_alpha=float("nan")), "lora_alpha"),
    "pickled": (
        lambda p: pickle_weights(p.adapter / "adapter_model.safetensors", "adapter_model.bin"),
        "adapter_model.bin",
    ),
    "not fetched": (
        lambda p: (p.adapter / "adapter_model.safetensors").write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
        ),
        "is a Git LFS pointer, not the data",
    ),
}
BASES: dict[str, Damage] = {
    "holds an adapter": (
        lambda p: shutil.copy(p.adapter / "adapter_config.json", p.base),
        "adapter_config.json lies in the folder",
    ),
    "pickled": (
        lambda p: pickle_weights(p.base / "model.safetensors", "pytorch_model.bin"),
        "no .safetensors file",
    ),
    "not a number": (lambda p: spoil_weight(p, float("nan")), "mlp.c_fc.weight holds numbers"),
    "infinite": (lambda p: spoil_weight(p, -float("inf")), "mlp.c_fc.weight holds numbers"),
    "answers not finite": (
        lambda p: edit(p.base / "config.json", layer_norm_epsilon=-1e9),
        "answers with numbers that are not finite",
    ),
}


def refuse(answer: Answer, what: str, folder: Path) -> None:
    assert (answer.code, answer.out) == (3, ""), answer.err
    assert what in answer.err and str(folder) in answer.err, answer.err


@pytest.mark.parametrize("command", OF_ADAPTERS)
@pytest.mark.parametrize("kind", ADAPTERS)
def test_an_adapter_that_would_be_used_in_part_is_refused_by_every_command(
    command: str, kind: str, place: Place
) -> None:
    damage, what = ADAPTERS[kind]
    damage(place)
    refuse(OF_ADAPTERS[command](place), what, place.adapter)


@pytest.mark.parametrize("command", OF_BASES)
@pytest.mark.parametrize("kind", BASES)
def test_a_base_that_cannot_be_scored_as_it_is_named_is_refused_by_every_command(
    command: str, kind: str, place: Place
) -> None:
    damage, what = BASES[kind]
    damage(place)
    is_other = command == "export" and kind != "holds an adapter"
    said = "does not hold the base model" if is_other else what
    refuse(OF_BASES[command](place), said, place.base)


def test_an_adapter_is_given_away_on_no_other_base_than_its_own(place: Place) -> None:
    spoil_weight(place, 0.5)  # a sound model, but another one
    refuse(export(place), "does not hold the base model", place.base)
    with pytest.raises(InputError, match="does not hold the base model"):
        lorastudy.open_results(place.folder / "out").load("lora")


def test_what_is_spoilt_above_is_sound(place: Place) -> None:
    for command in {**OF_ADAPTERS, **OF_BASES}.values():
        if command is not run:
            answer = command(place)
            assert answer.code == 0, answer.err


@pytest.mark.parametrize("command", SCORING)
def test_a_model_that_is_nowhere_is_refused(command: str, place: Place) -> None:
    for nowhere in ("./no/such/folder", "a/b/c", "has space/model", "https://x.y/z", ""):
        assert repr(nowhere) in SCORING[command](place, nowhere).err
