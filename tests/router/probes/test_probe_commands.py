"""From labelled texts to a probe, by the commands that users type; and one pass for an answer and its labels."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny import NUM_LAYERS, save_tiny_model

from pipeline import FrozenModel, LayerProgram
from pipeline.cli.main import main
from pipeline.engine.loading import weights_fingerprint
from pipeline.errors import UserError
from pipeline.model_source import resolve_model
from router import Probe, RoutedCausalLM
from router.artifact.base_model import BaseModelRef
from router.features.hidden_states import STATE_SELECTIONS, StateStore, pool_states, stack_states
from router.features.prompt_template import PromptTemplate
from router.heads.per_layer.per_layer_head import PerLayerHead
from router.heads.per_layer.routers import LayerRouters, RouterConfig
from router.probes.compare import compare
from router.probes.fit import collated
from router.probes.metrics import best_threshold, calibration_error, macro_f1
from router.probes.network import ProbeConfig, ProbeNetwork
from router.probes.probe_requests import CompareRequest, ProbeTrainRequest
from router.probes.texts import LabelledText, check_labels, labels_of
from router.probes.train import _draw, read_split
from router.routed.checkpoint import Router

pytestmark = [pytest.mark.commands, pytest.mark.usefixtures("local_actors")]

REPOSITORY = Path(__file__).resolve().parents[3]
LETTERS = "abcdefghij"
IDENTITY = LayerProgram.identity(NUM_LAYERS)


def command(*arguments):
    """The output of a command of ours, which must end well."""
    result = CliRunner().invoke(main, ["probe", *map(str, arguments)])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def refused(*arguments):
    """What a command says that must be refused before anything starts."""
    result = CliRunner().invoke(main, ["probe", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    return result.output


def write_texts(file, count, seed):
    """Texts of letters; those of one label hold a z here and there."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        letters = [rng.choice(LETTERS) for _ in range(rng.randrange(6, 24))]
        if number % 3 == 0:
            for place in rng.sample(range(len(letters)), len(letters) // 3):
                letters[place] = "z"
        label = "sleepy" if "z" in letters else "awake"
        rows.append({"text": "".join(letters) + rng.choice([" ab", " cd"]), "label": label})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


class FrozenModelService:
    """A tiny model and labelled texts."""

    def __init__(self, folder):
        self.folder = folder
        self.model = save_tiny_model(folder / "model")
        self.train_texts = write_texts(folder / "train.jsonl", 300, 0)
        self.test_texts = write_texts(folder / "test.jsonl", 60, 1)
        self.features = folder / "features"

    def train(self, name, *options, data=None, run=command):
        out = self.folder / name
        given = ["--model", self.model, "--data", data or self.train_texts, "--out", out, "--features", self.features]
        return out, run("train", *given, *options)


@pytest.fixture(scope="module")
def service(tmp_path_factory, local_actors):
    return FrozenModelService(tmp_path_factory.mktemp("probing"))


@pytest.fixture(scope="module")
def gate(service):
    out, text = service.train("gate", "--actors", 2, "--epochs", 8, "--lr", "0.03")
    assert re.search(r"2 labels: awake 6\d\.\d %, sleepy 3\d\.\d %", text)
    return out


@pytest.fixture(scope="module")
def model(service):
    return FrozenModel.load(str(service.model), device="cpu", dtype="float32")


def texts_of(file):
    return [json.loads(line)["text"] for line in file.read_text().splitlines()]


def test_states_are_what_stock_transformers_says(model):
    """Catches states of another layer, and a last one that went through the final norm."""
    tokens = model.tokenizer("abcz").input_ids
    [states] = model.hidden_states([tokens], [IDENTITY], lambda state: pool_states(state, "tokens"))
    stock = model.hf_model(torch.tensor([tokens]), output_hidden_states=True).hidden_states
    for layer in range(NUM_LAYERS):
        one = stock[layer][0]
        torch.testing.assert_close(
            states[layer].float(), one / one.square().mean(-1, keepdim=True).sqrt(), atol=2e-3, rtol=2e-3
        )
    torch.testing.assert_close(model.hf_model.model.norm(states[-1].float()), stock[-1][0], atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize("reading", STATE_SELECTIONS)
def test_a_reading_keeps_what_it_says(reading):
    """Catches a reading that leaves out what a probe of it needs."""
    states = torch.randn(5, 4, 8, generator=torch.Generator().manual_seed(0))
    kept = stack_states(torch.stack([pool_states(state, reading) for state in states]), reading).float()
    normed = states / states.square().mean(-1, keepdim=True).sqrt()
    wanted = {
        "tokens": normed.transpose(0, 1),
        "top": normed[-1:].transpose(0, 1),
        "mean": normed.mean(1)[None],
        "max": normed.amax(1)[None],
        "last": normed[:, -1][None],
    }[reading]
    torch.testing.assert_close(kept, wanted, atol=2e-3, rtol=2e-3)


def test_a_probe_learns_what_a_text_holds(service, gate):
    """Catches labels that are mixed up with others, states of other texts, and figures that are not the probe's."""
    out = service.folder / "figures.json"
    given = ["--probe", gate, "--data", service.test_texts, "--features", service.features, "--out", out]
    assert "macro-F1" in command("evaluate", *given)
    figures = json.loads(out.read_text())
    assert figures["macro_f1"] > 0.9 and figures["auprc"] > 0.9
    assert (gate / "training.png").read_bytes().startswith(b"\x89PNG")
    records = [json.loads(line) for line in (gate / "metrics.jsonl").read_text().splitlines()]
    assert records[0]["epoch"] == 1 and {"train_loss", "loss", "accuracy", "macro_f1"} <= records[0].keys()


def test_a_second_training_reads_nothing(service, gate):
    """Catches states that are computed anew, and a training that does not repeat."""
    again, text = service.train("again", "--epochs", 8, "--lr", "0.03")
    _, refusal = service.train("again", run=refused)
    assert "again holds a probe already; give --overwrite to replace it" in refusal
    assert "All states are in" in text and "Reading" not in text
    assert (again / "model.safetensors").read_bytes() == (gate / "model.safetensors").read_bytes()


def test_a_reloaded_probe_says_the_same_to_the_bit(service, gate, model):
    """Catches rounding on the way to the disk, and states in use that are made otherwise than in training."""
    said = []
    for name in ("one.jsonl", "two.jsonl"):
        out = service.folder / name
        given = ["--probe", gate, "--data", service.test_texts, "--features", service.features, "--out", out]
        command("predict", *given)
        said.append(out.read_text())
    assert said[0] == said[1]
    rows = [json.loads(line) for line in said[0].splitlines()]
    texts = texts_of(service.test_texts)
    assert len(rows) == len(texts)
    probe = Probe.from_pretrained(gate)
    tokens = [model.tokenizer(text).input_ids for text in texts]
    _, labels = model.generate(tokens, [IDENTITY] * len(tokens), max_new_tokens=1, probes=[probe])
    for row, [label] in zip(rows, labels):
        assert label.label == row["label"]
        # Another batch may round in a last bit.
        assert label.scores == pytest.approx(row["scores"], abs=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        ["--aggregator", "pooling", "--pooling", "max"],
        ["--aggregator", "mha", "--downcast", 4, "--num-heads", 2],
        ["--scope", "last"],
        ["--scope", "layers"],
        ["--scope", "tokens"],
    ],
    ids=lambda options: "-".join(map(str, options[1:2])),
)
def test_every_kind_of_probe_trains_and_looks_on(service, model, options):
    """Catches a kind that reads in use what it was not trained on: padding, other tokens, another layer."""
    out, _ = service.train("kind" + "".join(map(str, options)), "--epochs", 2, "--limit", 80, *options)
    probe, texts = Probe.from_pretrained(out), texts_of(service.train_texts)[:20]
    revision = resolve_model(str(service.model)).revision
    store = StateStore(
        service.features,
        revision=revision,
        dtype="float32",
        prompt_template=PromptTemplate(),
        state_selection=probe.config.state_selection,
    )
    with torch.inference_mode():
        trained = [probe.labelled(probe.network(*collated([store.read(text)])))[0] for text in texts]
    tokens = [model.tokenizer(text).input_ids for text in texts]
    _, labels = model.generate(tokens, [IDENTITY] * len(tokens), max_new_tokens=1, probes=[probe])
    for wanted, [label] in zip(trained, labels, strict=True):
        assert label.scores == pytest.approx(wanted.scores, abs=1e-3)


def test_contenders_are_judged_on_the_same_texts(service, gate):
    """Catches a baseline that sees the test's labels, that is judged on other texts, or that fails on one seed."""
    out = service.folder / "compared.json"
    names = ("gate", "last", "first-token", "tf-idf", "zero-shot")
    text = command(
        *("compare", "--model", service.model, "--data", service.train_texts, "--test", service.test_texts),
        *("--features", service.features, "--seeds", 2, "--epochs", 8, "--lr", "1e-6,0.03", "--out", out),
        *(part for name in names for part in ("--contender", name)),
    )
    figures = json.loads(out.read_text())
    assert list(figures) == list(names) and "ECE" in text
    assert [len(figures[name]["runs"]) for name in names] == [2, 2, 1, 1, 1]
    assert figures["gate"]["runs"][0]["macro_f1"] > 0.9
    # A rate at which nothing is learnt in eight epochs is not the one that is taken.
    assert [figures[name]["learning_rate"] for name in names] == [0.03, 0.03, None, None, None]
    # What knows nothing of these letters is at chance, unless it was shown the answers.
    assert figures["zero-shot"]["runs"][0]["accuracy"] < 0.9
    assert all(sum(map(sum, run["confusion"])) == 60 for one in figures.values() for run in one["runs"])


# -- one pass ------------------------------------------------------------------------------


def test_probes_look_on_for_no_second_pass(gate, model):
    """Catches a prefill that is run again for the labels, and an answer that they change."""
    probe, tokens = Probe.from_pretrained(gate), [model.tokenizer(text).input_ids for text in ("abcz", "abcabc")]
    programs = [LayerProgram.from_counts([1, 0, 1, 2, 1, 1]), IDENTITY]
    before = model.layers_run
    plain = model.generate(tokens, programs, max_new_tokens=3)
    between = model.layers_run
    watched, labels = model.generate(tokens, programs, max_new_tokens=3, probes=[probe, probe])
    assert watched == plain
    assert model.layers_run - between == between - before
    assert [len(of_row) for of_row in labels] == [2, 2] and labels[0][0] == labels[0][1]
    assert model.generate([], [], probes=[probe]) == ([], [])


def test_a_program_shows_what_enters_each_layer(gate, model):
    """Catches states that are counted by runs: a skipped layer would shift every one behind it."""
    probe, tokens = Probe.from_pretrained(gate), model.tokenizer("abzab").input_ids
    program = LayerProgram.from_counts([1, 0, 1, 2, 1, 1])
    _, [[label]] = model.generate([tokens], [program], max_new_tokens=1, probes=[probe])
    [path] = model.hidden_states([tokens], [program], probe.take)
    assert label.scores == pytest.approx(probe.label(path[[0, 1, 1, 2, 4, 5, 6]]).scores, abs=1e-3)
    with pytest.raises(ValueError, match="keep the layers' order"):
        model.generate([tokens], [LayerProgram((0, 2, 1), NUM_LAYERS)], probes=[probe])


@pytest.fixture(scope="module")
def routed(service):
    source = resolve_model(str(service.model))
    routers = LayerRouters(RouterConfig(num_layers=NUM_LAYERS, hidden_size=32, num_windows=4, width=8), seed=5)
    routers.weight_out.data *= 8
    held_out = torch.randn(20, NUM_LAYERS, 3, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    router = Router(
        base=BaseModelRef(name=source.name, revision=source.revision), head=PerLayerHead(routers), held_out=held_out
    )
    router.save(service.folder / "router")
    return RoutedCausalLM.from_pretrained(service.folder / "router", device="cpu", dtype="float32")


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"do_sample": True, "num_return_sequences": 2}])
def test_a_routed_model_answers_and_labels_in_one_pass(gate, model, routed, options):
    """Catches padding that a probe reads, labels of another prompt or beam, and a prefill that is run twice."""
    probe, prompts = Probe.from_pretrained(gate), ["abcz", "abcabcabcabc", "zz"]
    calls = []
    hooks = [layer.register_forward_hook(lambda *_: calls.append(1)) for layer in routed.base.model.layers]
    plain = routed.generate(prompts, max_new_tokens=3, min_new_tokens=3, **options)
    number = len(calls)
    answers, labels = routed.generate(prompts, max_new_tokens=3, min_new_tokens=3, probes=[probe], **options)
    for hook in hooks:
        hook.remove()
    assert len(calls) == 2 * number and len(answers) == len(plain)
    if "do_sample" not in options:
        assert answers == plain
    assert routed.generate([], probes=[probe]) == ([], [])
    programs = routed.route(prompts)
    tokens = [model.tokenizer(prompt).input_ids for prompt in prompts]
    _, expected = model.generate(tokens, programs, max_new_tokens=1, probes=[probe])
    for [label], [wanted] in zip(labels, expected, strict=True):
        assert label.scores == pytest.approx(wanted.scores, abs=2e-3)


# -- what is refused -----------------------------------------------------------------------


def test_a_probe_for_another_model_is_refused_by_name(gate, service, tmp_path, routed):
    """Catches labels that a model's strange states are given without a word."""
    from transformers import AutoModelForCausalLM

    other = AutoModelForCausalLM.from_pretrained(service.model)
    with torch.no_grad():
        other.model.layers[-1].self_attn.q_proj.weight.add_(0.1)
    stranger, probe = FrozenModel(other), Probe.from_pretrained(gate)
    with pytest.raises(UserError, match=r"was trained on .*model .revision sha256:.*other weights"):
        stranger.generate([[1, 2]], [IDENTITY], probes=[probe])
    other.save_pretrained(tmp_path / "other")
    given = ["--probe", gate, "--data", service.test_texts, "--out", tmp_path / "x.jsonl"]
    text = refused("predict", *given, "--base", tmp_path / "other")
    assert "is not the model that the probe was trained on" in text
    text = refused("evaluate", "--probe", service.folder / "router", "--data", service.test_texts)
    assert "holds a router, and not a probe" in text
    with pytest.raises(UserError, match="holds a probe, and not a router"):
        RoutedCausalLM.from_pretrained(gate)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_precision_of_the_weights_makes_no_other_model(gate, service, dtype):
    """Catches a mark that refuses the very model in another precision."""
    model = FrozenModel.load(str(service.model), device="cpu", dtype=dtype)
    _, labels = model.generate([[1, 2, 3]], [IDENTITY], max_new_tokens=1, probes=[Probe.from_pretrained(gate)])
    assert labels[0][0].label in ("awake", "sleepy")


@pytest.mark.parametrize("part", ["embed_tokens.weight", "layers.0.mlp.down_proj.weight", "norm.weight"])
def test_any_part_of_the_weights_makes_another_model(service, part):
    """Catches a fine-tuned model that is taken for its base, because what was compared stayed the same."""
    from transformers import AutoModelForCausalLM

    base, other = (AutoModelForCausalLM.from_pretrained(service.model) for _ in range(2))
    assert weights_fingerprint(base) == weights_fingerprint(other)
    tuned = AutoModelForCausalLM.from_pretrained(service.model)
    with torch.no_grad():
        tuned.model.get_parameter(part).mul_(1.05)
    assert weights_fingerprint(tuned) != weights_fingerprint(base)


def test_no_two_texts_share_their_states():
    """Catches a text whose template says what another's text does."""
    assert PromptTemplate(template="{text}\nB").key("C") != PromptTemplate().key("B\nC")


def test_a_label_that_is_rare_is_learnt(tmp_path):
    """Catches a training that refuses its own data where chance holds out every text of a label."""
    data = tmp_path / "rare.jsonl"
    rows = [{"text": f"{number}", "label": "odd" if number % 2 else "even"} for number in range(60)]
    rare = next(f"rare {number}" for number in range(100) if _draw(f"rare {number}") < 0.1)
    data.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"text": rare, "label": "rare"}]))
    learnt, held_out = read_split(ProbeTrainRequest(model="", data=str(data), out=tmp_path / "out"))
    assert rare in {text.text for text in learnt} and rare not in {text.text for text in held_out}
    assert len(learnt) + len(held_out) == 61 and {text.label for text in held_out} == {"odd", "even"}


def test_a_baseline_does_not_see_the_answers(tmp_path):
    """Catches a test set that is learnt from: here its labels say the opposite of all others."""
    words = {"good": ["fine day", "nice day", "lovely day"], "bad": ["sad day", "awful day", "grim day"]}
    others = {"good": "bad", "bad": "good"}
    for name, label_of in (("train", dict(zip(words, words))), ("test", others)):
        rows = [
            {"text": f"{text} number {number} {name}", "label": label_of[label]}
            for label, texts in words.items()
            for text in texts
            for number in range(20)
        ]
        (tmp_path / name).with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    request = CompareRequest(
        train=ProbeTrainRequest(model="", data=str(tmp_path / "train.jsonl"), out=tmp_path),
        test=str(tmp_path / "test.jsonl"),
        methods=("tf-idf",),
    )
    [compared] = compare(request)
    assert compared.runs[0]["accuracy"] == 0


def test_the_threshold_is_the_best_of_all():
    """Catches a threshold that is found fast and is not the one that plain trying finds."""
    random_numbers = np.random.default_rng(0)
    for size in (2, 7, 40, 200):
        labels = np.array([0, 1, *random_numbers.integers(0, 2, size - 2)])
        positive = np.round(np.clip(random_numbers.normal(0.4 + 0.2 * labels, 0.25), 0, 1), 2)
        found = best_threshold(labels, positive)
        values = np.unique([0.5, *positive, *(positive + 0.005)])
        most = max(macro_f1(labels, (positive >= value).astype(int)) for value in values)
        assert macro_f1(labels, (positive >= found).astype(int)) == pytest.approx(most)


def test_confidence_that_is_right_is_no_error():
    """Catches a calibration error that counts bins instead of texts."""
    confidence = np.array([0.9] * 10 + [0.6] * 5)
    right = np.array([True] * 9 + [False] + [True] * 3 + [False] * 2)
    assert calibration_error(right, confidence) == pytest.approx(0)
    assert calibration_error(~right, confidence) == pytest.approx((10 * 0.8 + 5 * 0.2) / 15)


def test_what_is_saved_is_what_was_trained(tmp_path):
    """Catches weights, labels, threshold or form that are rounded or lost on the way to the disk."""
    network = ProbeNetwork(ProbeConfig(num_layers=2, hidden_size=8, num_classes=2, aggregator="mha", downcast=2))
    prompt_template = PromptTemplate(template="<{text}>", max_tokens=9)
    probe = Probe(
        base=BaseModelRef(name="x", revision="y"),
        network=network,
        labels=("a", "b"),
        weights_fingerprint="m",
        prompt_template=prompt_template,
        threshold=0.3,
    )
    probe.save_pretrained(tmp_path / "probe")
    again = Probe.from_pretrained(tmp_path / "probe")
    assert (again.base, again.labels, again.weights_fingerprint, again.prompt_template, again.threshold) == (
        probe.base,
        probe.labels,
        "m",
        prompt_template,
        0.3,
    )
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], tensor)
    assert again.prompt("x") == "<x>"
    with pytest.raises(UserError, match="are not finite"):
        again.label(torch.full((3, 1, 8), math.nan))


def test_texts_that_are_too_long_are_cut_and_counted(service, tmp_path):
    """Catches a text that breaks the run, or is cut without a word."""
    data = tmp_path / "long.jsonl"
    rows = [{"text": letter * (600 if letter == "b" else 9), "label": letter} for letter in "abcdabcd"]
    rows = [{**row, "text": f"{number}{row['text']}"} for number, row in enumerate(rows)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, text = service.train("long", "--epochs", 1, "--validation", data, data=data)
    assert "warning: 2 of 8 texts were longer than the model's context, and their ends were cut off" in text
    _, text = service.train("short", "--epochs", 1, "--validation", data, "--max-tokens", 6, data=data)
    assert "warning: 8 of 8 texts were longer than --max-tokens" in text


def test_what_stands_behind_a_text_is_not_cut(model):
    """Catches a prompt whose question is lost with the text's end."""
    tokens, cut = PromptTemplate(template="<{text}>", max_tokens=6).tokens(model.tokenizer, "abcdefgh", 512)
    assert cut and len(tokens) <= 6 and model.tokenizer.decode(tokens).endswith(">")
    with pytest.raises(UserError, match="the template alone is longer"):
        PromptTemplate(template="123456789{text}", max_tokens=6).tokens(model.tokenizer, "abc", 512)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "x"}], [], "has the label 'x': there is nothing"),
        ([{"text": "", "label": "x"}], [], "line 1: column 'text' is empty"),
        ([{"body": "a", "label": "x"}], [], "there is no column 'text'; it has: body, label"),
        ([{"text": "a"}], [], "there is no column 'label'; it has: text"),
        ([{"text": "a", "label": None}], [], "column 'label' is empty"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], [], "2 texts are too few"),
        ([{"text": "a", "label": "x"}], ["--template", "no place"], "--template must contain {text} once"),
        ([{"text": "a", "label": "x"}], ["--aggregator", "sum"], "unknown aggregator 'sum'"),
        ([{"text": "a", "label": "x"}], ["--scope", "first"], "unknown scope 'first'"),
        ([{"text": "a", "label": "x"}], ["--lr", 0], "--lr must be above 0"),
        ([{"text": "a", "label": "x"}], ["--epochs", 0], "--epochs must be at least 1"),
        ([{"text": "a", "label": "x"}], ["--held-out", 1], "--held-out must be between 0 and 1"),
        ([{"text": "a", "label": "x"}], ["--seed", -1], "--seed must be at least 0"),
        ([{"text": "a", "label": "x"}], ["--downcast", 0], "--downcast must be at least 1, got 0"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}] * 20, ["--validation", "nowhere.jsonl"], "nowhere"),
        ([{"text": "a", "label": "x"}], ["--limit", 0], "--limit must be at least 1"),
        ([{"text": "a", "label": "x"}], ["--max-tokens", 0], "--max-tokens must be at least 1"),
    ],
)
def test_bad_input_is_named(service, tmp_path, rows, options, message):
    """Catches a traceback, or a fault that shows only after an hour of reading."""
    data = tmp_path / "bad.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, text = service.train("bad", *options, data=data, run=refused)
    assert message in text
    assert not (service.folder / "bad" / "config.json").exists()


def test_a_label_that_was_never_seen_is_named(service, gate, tmp_path):
    """Catches figures that count rows which the probe cannot get right."""
    data = tmp_path / "unseen.jsonl"
    data.write_text('{"text": "abc", "label": "awake"}\n{"text": "abd", "label": "dreaming"}\n')
    text = refused("evaluate", "--probe", gate, "--data", data)
    assert "labels that the probe was not trained on: 'dreaming' (1 rows), first in" in text and "line 2" in text


def test_too_little_room_is_said_before_it_is_filled(service, tmp_path):
    """Catches a disk that fills up over hours."""
    _, text = service.train("big", "--max-states-gib", "0.0001", "--features", tmp_path, run=refused)
    assert "--max-states-gib allows 0.0" in text and "--aggregator pooling" in text


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 20), "is damaged"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "config.json").write_text('{"base_model": {}}'), "is no probe's configuration"),
        (lambda folder: (folder / "config.json").unlink(), "is no probe folder"),
        (lambda folder: resize(folder, hidden_size=10**12), "is no probe's configuration"),
    ],
)
def test_a_damaged_probe_is_named(gate, tmp_path, damage, message):
    """Catches a traceback where a file is cut short."""
    import shutil

    folder = tmp_path / "probe"
    shutil.copytree(gate, folder)
    damage(folder)
    with pytest.raises(UserError, match=message):
        Probe.from_pretrained(folder)


def resize(folder, **sizes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **sizes}))


def test_the_signature_of_a_url_is_in_no_message():
    """Catches a secret on the screen where texts have a wrong label, or one only."""
    texts = [LabelledText(text="a", label="x", where="row 1")]
    url = "https://host/texts.jsonl?signature=not-for-logs"
    for check in (lambda: labels_of(texts, url), lambda: check_labels(texts, ["y"], url)):
        with pytest.raises(UserError, match=r"https://host/texts.jsonl\?…") as refusal:
            check()
        assert "not-for-logs" not in str(refusal.value)
