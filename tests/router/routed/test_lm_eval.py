"""A routed model in lm-evaluation-harness: each request under its own prompt's program, in both kinds of requests."""

from __future__ import annotations

import json
import sys
from functools import partialmethod

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager
from tiny import NUM_LAYERS, save_tiny_model

from pipeline.engine import materialize
from pipeline.model_source import resolve_model
from router.artifact.base_model import BaseModelRef
from router.heads.per_layer.per_layer_head import PerLayerHead
from router.heads.per_layer.routers import LayerRouters, RouterConfig
from router.routed.checkpoint import Router
from router.routed.lm_eval import RoutedHarnessModel

CHOICES = """
task: tiny_choices
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: ["yes", "no", "maybe so"]
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: acc
"""
WRITTEN = """
task: tiny_written
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs:
  max_gen_toks: 5
  do_sample: false
  until: ["e"]
metric_list:
  - metric: exact_match
"""


@pytest.fixture(scope="module")
def router(tmp_path_factory):
    folder = tmp_path_factory.mktemp("harness")
    source = resolve_model(str(save_tiny_model(folder / "base")))
    routers = LayerRouters(RouterConfig(num_layers=NUM_LAYERS, hidden_size=32, num_windows=4, width=8), seed=5)
    routers.weight_out.data *= 8
    Router(
        base=BaseModelRef(name=source.name, revision=source.revision),
        head=PerLayerHead(routers),
        held_out=torch.zeros(4, NUM_LAYERS, 3).log_softmax(-1),
    ).save(folder / "router")
    return folder / "router"


@pytest.fixture(scope="module")
def model(router):
    return RoutedHarnessModel(str(router), batch_size=3, device="cpu")


@pytest.fixture
def tasks(tmp_path):
    data = tmp_path / "data.jsonl"
    lines = [{"question": f"Is {number} a number?", "answer": number % 3} for number in range(7)]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, text in (("choices", CHOICES), ("written", WRITTEN)):
        (tmp_path / f"{name}.yaml").write_text(text.format(data=data))
    return tmp_path


def requests(kind, arguments):
    return [Instance(request_type=kind, doc={}, arguments=pair, idx=0) for pair in arguments]


def test_likelihoods_are_those_of_the_prompts_program(model):
    """Catches a program that the continuation, or a neighbour in the batch, has a say in."""
    pairs = [(f"Is {'very ' * (number % 4)}{number} odd?", end) for number in range(5) for end in (" yes", " maybe so")]
    found = model.loglikelihood(requests("loglikelihood", pairs), disable_tqdm=True)
    programs = set()
    for (context, continuation), (likelihood, greedy) in zip(pairs, found):
        before, after = model._encode_pair(context, continuation)
        [program] = model.routed.route([before])
        programs.add(program)
        stock = materialize(model.routed.base, program)
        with torch.inference_mode():
            log_p = stock(torch.tensor([before + after])).logits[0].log_softmax(-1)[len(before) - 1 : -1]
        assert likelihood == pytest.approx(float(log_p[range(len(after)), after].sum()), abs=1e-3)
        assert greedy == (log_p.argmax(-1).tolist() == after)
    assert len(programs) > 1


def test_answers_stop_where_they_are_told(model):
    """Catches stop strings that stay in the answer, and requests whose options are mixed up."""
    arguments = [
        (f"Question {n}", {"until": ["e", "q"], "max_gen_toks": 3 + n % 2, "do_sample": False}) for n in range(6)
    ]
    found = model.generate_until(requests("generate_until", arguments), disable_tqdm=True)
    for (context, options), text in zip(arguments, found):
        [plain] = model.routed.generate([model.tok_encode(context)], max_new_tokens=options["max_gen_toks"])
        assert text == min((plain.split(stop)[0] for stop in "eq"), key=len)


def test_whole_texts_have_a_likelihood(model):
    """Catches windows that score a token twice, or not at all."""
    [found] = model.loglikelihood_rolling(requests("loglikelihood_rolling", [("Once upon a time",)]), disable_tqdm=True)
    tokens = model.tok_encode("Once upon a time")
    [program] = model.routed.route([[model.prefix_token_id]])
    stock = materialize(model.routed.base, program)
    with torch.inference_mode():
        log_p = stock(torch.tensor([[model.prefix_token_id, *tokens]])).logits[0].log_softmax(-1)[:-1]
    assert found == pytest.approx(float(log_p[range(len(tokens)), tokens].sum()), abs=1e-3)


def test_the_harness_evaluates_both_kinds_from_python(router, tasks):
    """Catches an interface that has drifted from the harness, and results that do not say what ran."""
    model = RoutedHarnessModel(str(router), budget=0.7, batch_size=4, device="cpu")
    results = simple_evaluate(
        model=model,
        tasks=["tiny_choices", "tiny_written"],
        # The harness' own thousands of task files are not read: that takes longer than all other tests of this file.
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=0,
    )
    assert set(results["results"]) == {"tiny_choices", "tiny_written"}
    config = results["config"]
    assert config["requests"] == 7 * 3 + 7 and config["budget"] == 0.7
    assert 1 <= config["mean_layers_run"] <= config["most_layers_run"] <= 0.7 * NUM_LAYERS


def test_the_command_hands_the_rest_to_the_harness(router, tasks, tmp_path, monkeypatch):
    """Catches options that are lost between two command lines."""
    from click.testing import CliRunner

    from pipeline.cli.main import main

    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(
        "lm_eval.tasks.TaskManager.__init__", partialmethod(TaskManager.__init__, include_defaults=False)
    )
    out = tmp_path / "results"
    arguments = ["--router", str(router), "--budget", "0.5", "--", "--tasks", "tiny_choices", "--include_path"]
    result = CliRunner().invoke(main, ["lm-eval", *arguments, str(tasks), "--limit", "3", "--output_path", str(out)])
    assert result.exit_code == 0, result.output
    [file] = out.rglob("results*.json")
    stored = json.loads(file.read_text())
    assert stored["config"]["most_layers_run"] <= 3 and stored["config"]["requests"] == 9
    missing = CliRunner().invoke(main, ["lm-eval", "--router", str(tmp_path / "none"), "--", "--tasks", "x"])
    assert missing.exit_code == 2 and "cannot be found" in missing.output
