"""A router's files: what comes back, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import NUM_LAYERS, save_tiny_model

from pipeline.errors import UserError
from pipeline.model_source import resolve_model
from router import RoutedCausalLM
from router.artifact.base_model import BaseModelRef
from router.artifact.folder import check_output_folder, weights_sha256, write_folder
from router.heads.per_layer.per_layer_head import PerLayerHead
from router.heads.per_layer.routers import LayerRouters, RouterConfig
from router.routed.checkpoint import Router


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def router(base):
    source = resolve_model(str(base))
    routers = LayerRouters(RouterConfig(num_layers=NUM_LAYERS, hidden_size=32, num_windows=4, width=8), seed=5)
    routers.weight_out.data *= 8
    held_out = torch.randn(20, NUM_LAYERS, 3, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    return Router(
        base=BaseModelRef(name=source.name, revision=source.revision),
        head=PerLayerHead(routers),
        held_out=held_out,
        made={"labels": "shortest"},
    )


@pytest.fixture
def folder(router, tmp_path):
    router.save(tmp_path / "router")
    return tmp_path / "router"


def test_what_is_saved_comes_back(router, folder):
    """Catches weights, held-out logits or notes that a round trip changes."""
    loaded = Router.load(folder)
    assert (loaded.base, loaded.head.settings(), loaded.made) == (router.base, router.head.settings(), router.made)
    assert torch.equal(loaded.held_out, router.held_out)
    for name, tensor in router.head.network.state_dict().items():
        assert torch.equal(loaded.head.network.state_dict()[name], tensor)
    assert "RoutedCausalLM" in (folder / "README.md").read_text()


def test_an_evaluation_goes_with_the_weights_that_it_judged(router, folder, tmp_path):
    """Catches an evaluation beside weights that it did not judge, and one of another router that is removed."""
    judged = weights_sha256(folder, "router")
    for name in ("evaluation.json", "evaluation.png", "notes.txt"):
        (folder / name).write_text("{}")
    replace(router, held_out=router.held_out.flip(0)).save(folder)
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors", "README.md", "notes.txt"}
    assert weights_sha256(folder, "router") != judged
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "evaluation.json").write_text("{}")
    router.save(tmp_path / "results")
    assert (tmp_path / "results" / "evaluation.json").exists()
    assert weights_sha256(tmp_path / "results", "router") == judged


@pytest.mark.parametrize("kind", ["router", "probe"])
def test_a_trained_folder_is_replaced_only_if_asked(kind, tmp_path):
    """Catches a training that writes over another one, or refuses the folder that an interrupted one left."""
    (tmp_path / "metrics.jsonl").write_text("")
    check_output_folder(tmp_path, kind, overwrite=False)
    write_folder(tmp_path, kind, config={"base_model": {}}, tensors={"one": torch.zeros(1)}, card="")
    with pytest.raises(UserError, match=f"holds a {kind} already; give --overwrite to replace it"):
        check_output_folder(tmp_path, kind, overwrite=False)
    check_output_folder(tmp_path, kind, overwrite=True)
    (tmp_path / "config.json").write_text('{"architectures": []}')
    with pytest.raises(UserError, match=f"something that is not a {kind}"):
        check_output_folder(tmp_path, kind, overwrite=True)


def test_one_line_loads_a_model_that_chooses_its_depth(folder, base, tmp_path):
    """Catches a budget that some sequence exceeds, and programs that are not what ran."""
    lm = RoutedCausalLM.from_pretrained(folder, budget=0.8)
    prompts = [f"Question {number}: what is {number} times {number}?" for number in range(12)]
    texts = lm.generate(prompts, max_new_tokens=4)
    assert len(texts) == 12 and all(isinstance(text, str) for text in texts)
    assert all(1 <= len(program) <= int(0.8 * NUM_LAYERS) for program in lm.last_programs)
    generated = lm.last_programs
    assert lm.route(prompts) == generated
    lm.generate(prompts, max_new_tokens=1, budget=0.5)
    assert all(len(program) <= 3 for program in lm.last_programs)
    lm.route(prompts, average=0.5)
    lm.save_pretrained(tmp_path / "copy")
    again = RoutedCausalLM.from_pretrained(tmp_path / "copy", base=str(base), budget=0.8)
    assert again.generate(prompts, max_new_tokens=4) == texts


def test_stock_generation_options_work(folder):
    """Catches sampling, streaming or stop strings that a wrapper swallows."""
    from transformers import TextStreamer

    lm = RoutedCausalLM.from_pretrained(folder)
    prompt = "The quick brown fox"
    lm.generate([prompt, "Another one"], max_new_tokens=3, num_beams=3)
    assert len(lm.last_programs) == 2, "one for each prompt, not for each beam"
    torch.manual_seed(0)
    sampled = lm.generate([prompt] * 2, max_new_tokens=12, do_sample=True, temperature=2.0)
    assert sampled[0] != sampled[1] and len(lm.last_programs) == 2
    several = lm.generate([prompt], max_new_tokens=3, do_sample=True, num_return_sequences=3)
    assert len(several) == len(lm.last_programs) == 3 and len(set(lm.last_programs)) == 1
    pieces = []

    class Listener(TextStreamer):
        def on_finalized_text(self, text, stream_end=False):
            pieces.append(text)

    [plain] = lm.generate([prompt], max_new_tokens=16, streamer=Listener(lm.tokenizer, skip_prompt=True))
    assert "".join(pieces) == plain
    stop = next(letter for letter in plain[1:] if letter.isascii())
    [stopped] = lm.generate([prompt], max_new_tokens=16, stop_strings=[stop])
    assert stopped == plain[: plain.index(stop) + len(stop)]


def test_nothing_to_generate_is_nothing(folder):
    """Catches a crash on the empty batch, and an answer to a prompt without tokens."""
    lm = RoutedCausalLM.from_pretrained(folder)
    assert lm.generate([]) == [] and lm.last_programs == []
    with pytest.raises(UserError, match="no tokens"):
        lm.generate([""])
    with pytest.raises(UserError, match="use_cache"):
        lm.generate(["x"], use_cache=False)
    with pytest.raises(UserError, match="max_new_tokens"):
        lm.generate(["x"], max_new_tokens=0)


@pytest.mark.parametrize("budget", [0, -1, 2.1, float("nan"), 0.1])
def test_a_budget_out_of_range_is_refused(folder, budget):
    """Catches a budget that allows no layer, or that no program can use."""
    with pytest.raises(UserError, match="budget"):
        RoutedCausalLM.from_pretrained(folder, budget=budget)
    with pytest.raises(UserError, match="budget"):
        RoutedCausalLM.from_pretrained(folder).generate(["x"], budget=budget)


def test_one_text_is_no_list_of_prompts(folder):
    """Catches a text that is answered letter by letter."""
    lm = RoutedCausalLM.from_pretrained(folder)
    for ask in (lm.generate, lm.route):
        with pytest.raises(UserError, match="a list of texts"):
            ask("one text")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "JSON object"),
        (lambda folder: rewrite(folder, lambda config: config.pop("base_model")), "no router's configuration"),
        (lambda folder: rewrite(folder, lambda config: config.update(width=0)), "no router's configuration"),
        (lambda folder: rewrite(folder, lambda config: config.update(hidden_size=10**12)), "no router's configuration"),
        (lambda folder: replace_tensor(folder, "held_out_log_probs", torch.tensor(0.5)), "does not hold the weights"),
        (lambda folder: replace_tensor(folder, "trained_on", torch.tensor(1)), "does not hold the weights"),
        (lambda folder: replace_tensor(folder, "trained_on", torch.ones(2, 2, dtype=torch.int64)), "does not hold the"),
        (lambda folder: replace_tensor(folder, "trained_on", torch.ones(2)), "does not hold the weights"),
        (lambda folder: rewrite(folder, lambda config: config.update(num_layers=7)), "does not hold the weights"),
        (lambda folder: rewrite(folder, lambda config: config.update(format_version=9)), "format version 9"),
        (lambda folder: truncate(folder / "model.safetensors", 0.5), "is it whole"),
        (lambda folder: truncate(folder / "model.safetensors", 0.0), "is it whole"),
    ],
)
def test_a_damaged_router_is_named(folder, damage, message):
    """Catches a traceback, or a router that runs on whatever bytes are left."""
    damage(folder)
    with pytest.raises(UserError, match=message):
        RoutedCausalLM.from_pretrained(folder)


def rewrite(folder, change):
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def replace_tensor(folder, name, tensor):
    file = folder / "model.safetensors"
    save_file({**load_file(file), name: tensor}, file)


def truncate(file, share):
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])


def test_weights_that_are_no_numbers_are_refused(router, tmp_path):
    """Catches routers that decide nothing, and silently take the first class."""
    router.head.network.bias_in.data[0, 0] = float("nan")
    router.save(tmp_path / "broken")
    with pytest.raises(UserError, match="not finite"):
        Router.load(tmp_path / "broken")


def test_nothing_else_is_written_over(router, folder, base):
    """Catches a router that takes the place of a model's weights, which have the same file names."""
    before = (base / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="not a router"):
        router.save(base)
    assert (base / "model.safetensors").read_bytes() == before
    router.save(folder)


def test_another_base_model_is_refused(router, folder, base, tmp_path):
    """Catches routers that read the hidden states of a model that they never saw."""
    other = save_tiny_model(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rope_theta": 5e5}))
    with pytest.raises(UserError, match="is not the model that the router was trained on"):
        RoutedCausalLM.from_pretrained(folder, base=str(other))
    rewrite(folder, lambda config: config["base_model"].update(name=str(tmp_path / "gone")))
    with pytest.raises(UserError, match=r"base model .* cannot be found"):
        RoutedCausalLM.from_pretrained(folder)
    with pytest.raises(UserError, match="cannot be found"):
        RoutedCausalLM.from_pretrained(tmp_path / "nowhere")
    from pipeline.engine import FrozenModel

    model = FrozenModel.load(str(base), device="cpu")
    model.hf_model.config.hidden_size = 16
    with pytest.raises(UserError, match="6 layers and hidden size 32"):
        RoutedCausalLM(model.hf_model, model.tokenizer, router)


class FakeHub:
    """The two calls of the hub's client that an upload makes."""

    uploaded: dict[str, bytes] = {}  # noqa: RUF012
    refuses = False

    def create_repo(self, repo_id, *, private, exist_ok):
        if self.refuses:
            raise ConnectionError("no network")
        assert private and exist_ok
        return f"https://hub/{repo_id}"

    def upload_folder(self, *, repo_id, folder_path):
        self.uploaded.update({file.name: file.read_bytes() for file in Path(folder_path).iterdir()})


def test_a_router_is_uploaded_as_it_is_saved(folder, monkeypatch):
    """Catches an upload that lacks a file, uploads the base model too, or ends in a traceback without a network."""
    monkeypatch.setattr("huggingface_hub.HfApi", FakeHub)
    lm = RoutedCausalLM.from_pretrained(folder)
    assert lm.push_to_hub("owner/name", private=True) == "https://hub/owner/name"
    assert FakeHub.uploaded == {file.name: file.read_bytes() for file in folder.iterdir()}
    monkeypatch.setattr(FakeHub, "refuses", True)
    with pytest.raises(UserError, match="does not take 'owner/name': ConnectionError: no network"):
        lm.push_to_hub("owner/name", private=True)
