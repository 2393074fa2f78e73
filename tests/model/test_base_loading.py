"""A base model is loaded as it is stored, or not at all: nothing random fills a gap."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from lorastudy.config.models import BaseModelRef
from lorastudy.errors import InputError
from lorastudy.model.base import check_weights, describe_base, load_base
from lorastudy.model.base_folder import digest_base, find_base_folder
from lorastudy.model.tokenizer import load_tokenizer
from support.families import save_family

CPU = torch.device("cpu")
Change = Callable[[dict[str, Tensor]], None]


@pytest.fixture
def copy(tiny_gpt2: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_gpt2, tmp_path / "copy"))


def change_weights(folder: Path, change: Change) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("layout", ["tiny_gpt2", "tiny_llama"])
def test_loaded_weights_are_those_of_transformers(
    layout: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(layout)
    ours = load_base(folder, device=CPU)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name
    assert not ours.training


def test_loaded_weights_are_float32_whatever_is_stored(copy: Path) -> None:
    before = load_base(copy, device=CPU).state_dict()
    change_weights(copy, lambda t: t.update({k: v.half() for k, v in t.items()}))
    change_config(copy, dtype="float16")
    after = load_base(copy, device=CPU).state_dict()
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    assert all(torch.equal(after[name], before[name].half().float()) for name in before)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "Expecting property name"),  # transformers would go on without the file
        ("[]", "does not contain a JSON object"),
        (
            '{"eos_token_id": [[1]]}',
            r"eos_token_id is \[\[1\]\]",
        ),  # and this one, until it generates
        ('{"max_new_tokens": "many"}', "not supported between"),
    ],
)
def test_broken_settings_of_generation_are_named(content: str, says: str, copy: Path) -> None:
    (copy / "generation_config.json").write_text(content)
    with pytest.raises(InputError, match=rf"generation_config\.json does not hold .*{says}"):
        check_weights(copy)


def test_missing_weight_is_named(copy: Path) -> None:
    change_weights(copy, lambda t: t.pop("transformer.h.1.mlp.c_fc.weight"))
    with pytest.raises(InputError, match=r"weights lack transformer\.h\.1\.mlp\.c_fc\.weight\."):
        load_base(copy, device=CPU)


def test_weight_that_is_left_over_is_named(copy: Path) -> None:
    change_weights(copy, lambda t: t.update({"transformer.extra.weight": torch.zeros(2)}))
    with pytest.raises(
        InputError, match=r"hold more than .* describes: transformer\.extra\.weight"
    ):
        load_base(copy, device=CPU)


def test_weight_of_another_shape_is_named(copy: Path) -> None:
    change_weights(copy, lambda t: t.update({"transformer.wpe.weight": torch.zeros(63, 32)}))
    with pytest.raises(InputError, match=r"another shape .* transformer\.wpe\.weight\."):
        load_base(copy, device=CPU)


def test_layer_that_only_the_config_has_is_refused(copy: Path) -> None:
    change_config(copy, n_layer=3)
    with pytest.raises(InputError, match=r"weights lack transformer\.h\.2\..* and 9 more"):
        load_base(copy, device=CPU)


def test_layer_that_only_the_weights_have_is_refused(copy: Path) -> None:
    change_config(copy, n_layer=1)
    with pytest.raises(InputError, match=r"hold more .* transformer\.h\.1\."):
        load_base(copy, device=CPU)


def test_head_that_the_config_unties_has_to_be_stored(copy: Path) -> None:
    change_config(copy, tie_word_embeddings=False)
    with pytest.raises(InputError, match=r"weights lack lm_head\.weight"):
        load_base(copy, device=CPU)


def test_pickled_weights_are_never_read(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(tensors, copy / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no \.safetensors file.*can run code"):
        load_base(copy, device=CPU)


def test_cut_off_file_is_refused(copy: Path) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="the weights cannot be read"):
        load_base(copy, device=CPU)


@pytest.mark.parametrize(
    ("content", "command"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"/annex/objects/SHA256E-s9--0.safetensors\n", "git annex get"),
        (b"something else", ""),
    ],
)
def test_file_that_only_says_where_the_data_is_kept_is_named(
    content: bytes, command: str, copy: Path
) -> None:
    (copy / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=f"the weights cannot be read.*{command}"):
        load_base(copy, device=CPU)
    (copy / "tokenizer.json").write_bytes(content)
    with pytest.raises(InputError, match=f"no tokenizer can be loaded.*{command}"):
        load_tokenizer(copy)


def test_weights_under_another_name_than_transformers_reads_are_named(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "model.fp16.safetensors")
    with pytest.raises(InputError, match=r"only model\.fp16\.safetensors.*Rename"):
        load_base(copy, device=CPU)


def test_shard_that_is_missing_is_refused(copy: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(copy, dtype=torch.float32)
    (copy / "model.safetensors").unlink()
    model.save_pretrained(copy, max_shard_size="40KB")
    shards = sorted(copy.glob("*.safetensors"))
    assert len(shards) > 1
    assert load_base(copy, device=CPU) is not None
    shards[-1].unlink()
    with pytest.raises(InputError, match=r"the weights (cannot be read|lack)"):
        load_base(copy, device=CPU)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda a, b: save_file({**load_file(b), **load_file(a)}, b), "both .* and .* hold"),
        (lambda a, b: b.rename(b.parent.parent / b.name), "not in this folder"),
    ],
    ids=["name-twice", "elsewhere"],
)
def test_shards_that_hold_a_name_twice_or_lie_elsewhere_are_refused(
    edit: Callable[[Path, Path], object], message: str, copy: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(copy, dtype=torch.float32)
    (copy / "model.safetensors").unlink()
    model.save_pretrained(copy, max_shard_size="40KB")
    first, *_, last = sorted(copy.glob("*.safetensors"))
    edit(first, last)
    if not last.exists():
        index = copy / "model.safetensors.index.json"
        index.write_text(index.read_text().replace(last.name, f"../{last.name}"))
    with pytest.raises(InputError, match=message):
        load_base(copy, device=CPU)


def test_whole_numbers_in_place_of_weights_are_refused(copy: Path) -> None:
    path = copy / "model.safetensors"
    tensors = load_file(path)
    name = "transformer.h.0.mlp.c_fc.weight"
    tensors[name] = (100 * tensors[name]).to(torch.int8)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=rf"{name} holds torch.int8 numbers"):
        load_base(copy, device=CPU)


def test_one_file_of_weights_beside_several_is_refused(copy: Path) -> None:
    whole = (copy / "model.safetensors").read_bytes()
    model = AutoModelForCausalLM.from_pretrained(copy, dtype=torch.float32)
    (copy / "model.safetensors").unlink()
    model.save_pretrained(copy, max_shard_size="40KB")
    (copy / "model.safetensors").write_bytes(whole)
    with pytest.raises(InputError, match="not clear which weights are meant"):
        load_base(copy, device=CPU)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"architectures": ["BertForMaskedLM"]}, "BertForMaskedLM .* is not a decoder-only"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "is quantised"),
        ({"model_type": "nova"}, "not a causal language model that transformers knows"),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "decoder-only"),
    ],
    ids=["masked", "quantised", "unknown", "encoder-decoder"],
)
@pytest.mark.parametrize("read", [describe_base, lambda folder: load_base(folder, device=CPU)])
def test_model_of_another_kind_is_refused(
    changed: dict[str, object], message: str, read: Callable[[Path], object], copy: Path
) -> None:
    change_config(copy, **changed)
    with pytest.raises(InputError, match=message):
        read(copy)


def test_a_composite_model_whose_text_part_is_quantised_is_refused(tmp_path: Path) -> None:
    save_family("qwen2_vl", tmp_path)
    text = json.loads((tmp_path / "config.json").read_text())["text_config"]
    change_config(tmp_path, text_config={**text, "quantization_config": {"quant_method": "awq"}})
    with pytest.raises(InputError, match=r"is quantised already\. Give the unquantised model"):
        describe_base(tmp_path)


def test_config_that_is_cut_off_is_refused(copy: Path) -> None:
    path = copy / "config.json"
    path.write_text(path.read_text()[:40])
    with pytest.raises(InputError, match=r"config\.json: not a causal language model"):
        describe_base(copy)


def test_description_counts_what_is_loaded(tiny_llama: Path) -> None:
    described = describe_base(tiny_llama)
    network = load_base(tiny_llama, device=CPU)
    assert described.total_parameters == sum(p.numel() for p in network.parameters())
    assert described.max_positions == 64


def test_text_that_would_be_a_token_of_no_file_is_refused(copy: Path) -> None:
    path = copy / "tokenizer_config.json"
    settings = {**json.loads(path.read_text()), "additional_special_tokens": ["boat"]}
    path.write_text(json.dumps({**settings, "pad_token": "<pad>"}))
    tokenizer = load_tokenizer(copy)
    assert tokenizer.encode(["no ship"]) == [list(b"no ship")]
    for encode in (tokenizer.encode, tokenizer.encode_as_configured, tokenizer.write_texts):
        with pytest.raises(InputError, match="'boat' in a text would be one token"):
            encode(["no ship", "no boats"])


def test_digest_changes_with_a_weight_and_with_the_config(copy: Path) -> None:
    digests = [digest_base(copy)]
    change_weights(copy, lambda t: t["transformer.wpe.weight"][0].add_(1e-3))
    digests.append(digest_base(copy))
    change_config(copy, attn_pdrop=0.2)
    digests.append(digest_base(copy))
    assert len(set(digests)) == 3


def test_digest_covers_which_of_two_sets_of_files_the_index_names(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "one.safetensors")
    (copy / "two.safetensors").write_bytes(b"another")
    digests = []
    for name in ("one", "two"):
        index = {"weight_map": {"transformer.wpe.weight": f"{name}.safetensors"}}
        (copy / "model.safetensors.index.json").write_text(json.dumps(index))
        digests.append(digest_base(copy))
    assert digests[0] != digests[1]


def test_digest_without_a_choice_of_files_is_that_of_their_names_and_contents(copy: Path) -> None:
    """Folders that earlier versions started with such a base model have that digest."""
    name = "model.safetensors-00001-of-00001.safetensors"
    (copy / "model.safetensors").rename(copy / name)
    index = {"weight_map": {"transformer.wpe.weight": name}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    digest = hashlib.sha256()
    for path in (copy / "config.json", copy / name):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    assert digest_base(copy) == digest.hexdigest()


def test_digest_does_not_depend_on_where_the_folder_is(tiny_gpt2: Path, copy: Path) -> None:
    assert digest_base(tiny_gpt2) == digest_base(copy)


def find(reference: BaseModelRef, base: Path, mirror: Path | None = None) -> Path:
    return find_base_folder(reference, mirror=mirror, offline=True, base=base)


def test_relative_path_starts_from_the_study_file(copy: Path) -> None:
    assert find(BaseModelRef(path="copy"), base=copy.parent) == copy


def test_mirror_is_looked_at_by_the_id(copy: Path, tmp_path: Path) -> None:
    there = Path(shutil.copytree(copy, tmp_path / "mirror" / "some" / "model"))
    assert find(BaseModelRef(id="some/model"), base=copy, mirror=tmp_path / "mirror") == there


def test_id_that_is_nowhere_names_the_places_looked_at(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nobody/nothing .* not in the mirror .* local cache"):
        find(BaseModelRef(id="nobody/nothing"), base=tmp_path, mirror=tmp_path)


def test_folder_without_a_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no config\.json"):
        find(BaseModelRef(path="."), base=tmp_path)


def test_all_files_of_a_tokenizer_are_fetched_and_travel_with_it(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    templates = {
        "chat_template.jinja": "{{ messages }}",
        "additional_chat_templates/rag.jinja": "x",
    }
    of_tokenizer = [*templates, "special_tokens_map.json", "tokenizer.model", "merges.txt"]
    for name in (*of_tokenizer, "pytorch_model.bin", "README.md"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(templates.get(name, "{}"))

    def download(_: str, *, allow_patterns: list[str], **__: object) -> str:
        there = [p.relative_to(copy).as_posix() for p in copy.rglob("*") if p.is_file()]
        for name in filter_repo_objects(there, allow_patterns=allow_patterns):
            (tmp_path / "hub" / name).parent.mkdir(exist_ok=True, parents=True)
            shutil.copy(copy / name, tmp_path / "hub" / name)
        return str(tmp_path / "hub")

    monkeypatch.setattr("lorastudy.model.base_folder.snapshot_download", download)
    hub = BaseModelRef(id="team/tiny")
    fetched = find_base_folder(hub, mirror=None, offline=False, base=tmp_path)
    assert all((fetched / name).is_file() for name in of_tokenizer)
    assert not (fetched / "pytorch_model.bin").exists()  # a pickle is never asked for
    load_tokenizer(fetched).save(tmp_path / "export")
    for name, text in templates.items():
        assert (tmp_path / "export" / name).read_text() == text
