"""The examples of an evaluation: no router has seen them, in whatever wording its runs had them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from tiny import save_tiny_model, write_questions

from pipeline.errors import UserError
from pipeline.model_source import resolve_model
from pipeline.tasks import DataRequest, get_task
from pipeline.tasks.prompting import Prompting
from router.artifact.base_model import text_fingerprint
from router.evaluation.unseen_examples import days_of, unseen_examples

#: A template with the date and with thinking that is closed unless told, as some public ones have it.
TEMPLATE = (
    "{{ strftime_now('%d %b %Y') }}\n{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% if enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = save_tiny_model(tmp_path_factory.mktemp("model"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return resolve_model(str(folder))


@pytest.fixture(scope="module")
def tokenizer(model):
    from pipeline.engine.loading import load_description

    return load_description(model)[1]


def router_of(prompts, *, days=()):
    """What an evaluation asks of a router: the fingerprints of its prompts, and the dates of its runs."""
    return SimpleNamespace(trained_on=frozenset(map(text_fingerprint, prompts)), made={"days": list(days)})


def unseen(task, examples, routers, model):
    """The examples that none of the routers knows, and the number of the others, by the reason."""
    trained_on = frozenset().union(*(router.trained_on for router in routers))
    days = [day for router in routers for day in days_of(router)]
    return unseen_examples(examples, examples, task, model, trained_on=trained_on, days=days)


def left_out(task, examples, routers, model):
    """The number of examples that are left out, by the reason."""
    return unseen(task, examples, routers, model)[1]


@pytest.mark.parametrize(
    "of_the_run",
    [
        Prompting(day="2026-01-31"),
        Prompting(day="2026-01-31", thinking=True),
        Prompting(day="2026-01-31", version=1),
        Prompting(day="2026-11-30"),
    ],
)
def test_an_example_of_training_is_known_in_any_wording(model, tokenizer, tmp_path, of_the_run):
    """Catches examples of the training in an evaluation, because its runs were of another day or thought."""
    task = get_task("arc", prompting=Prompting(day="2026-11-30"))
    examples = task.read(DataRequest(data=str(write_questions(tmp_path / "questions.jsonl", 6))))
    as_searched = replace(task, prompting=of_the_run)
    router = router_of([as_searched.prompt(one, tokenizer) for one in examples[:4]], days=["2026-01-31", 7, "soon"])
    kept, reasons = unseen(task, examples, [router_of([]), router], model)
    assert ([one.id for one in kept], reasons) == ([one.id for one in examples[4:]], {"trained on": 4})


def test_a_prompt_of_an_unknown_day_is_another_prompt(model, tokenizer, tmp_path):
    """Catches a test above that would pass whatever the day: without the run's date the example is not known."""
    task = get_task("arc", prompting=Prompting(day="2026-11-30"))
    examples = task.read(DataRequest(data=str(write_questions(tmp_path / "questions.jsonl", 3))))
    of_another_day = replace(task, prompting=Prompting(day="2026-01-31"))
    assert left_out(task, examples, [router_of([of_another_day.prompt(examples[0], tokenizer)])], model) == {}


def test_a_made_example_is_known_by_its_id(model):
    """Catches a sum of the training that is asked again, behind other worked examples."""
    task = get_task("arithmetic")
    examples, others = (task.read(DataRequest(limit=6, seed=seed, split="test")) for seed in (0, 1))
    router = SimpleNamespace(trained_on=frozenset([text_fingerprint("arithmetic", examples[0].id)]), made={})
    assert left_out(task, examples, [router], model) == {"trained on": 1}
    assert left_out(task, others, [router_of([examples[0].question])], model) == {}


def test_an_evaluation_on_the_training_alone_is_refused(model, tokenizer):
    """Catches an evaluation of no example, or of the training examples."""
    task = get_task("arithmetic")
    examples = task.read(DataRequest(limit=3))
    router = router_of([task.prompt(one, tokenizer) for one in examples])
    with pytest.raises(UserError, match="none of the 3 examples is left, 3 left out: trained on; give others"):
        left_out(task, examples, [router], model)
