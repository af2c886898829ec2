"""What different searches find at equal evaluations, on the default task with the embedded model.

    python benchmarks/search_quality.py --questions 48 --simulations 50

Every search runs the same number of programs on the same questions. A program that two searches try on
one question is run once, so the verdicts compared are the same ones. Prints a table and writes
``search_quality.json`` with the machine and the versions.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pipeline import FrozenModel, LayerProgram
from pipeline.actions import drllm
from pipeline.search import PUBLISHED, ROOT_INDEX, Node, SearchConfig, SearchTree, stable_seed
from pipeline.tasks import DataRequest, Outcome, Question, get_task

#: Random edits start over from the identity after at most this many.
MAX_RANDOM_EDITS = 6
#: All questions advance together here, so their shared beginnings take more room than in an evaluator.
CACHE_BYTES = 6 << 30


class RandomEdits(SearchTree):
    """No search: one to six random edits of the identity, each time anew."""

    def _descend(self) -> list[int]:
        program = self.identity.program
        while program in self._index:
            program = self.identity.program
            for _ in range(1 + int(self._random.random() * MAX_RANDOM_EDITS)):
                edits = drllm(program, self.max_program_length)
                program = edits[int(self._random.random() * len(edits))].program
        self._index[program] = len(self.nodes)
        self.nodes.append(Node(program, depth=1, parent=ROOT_INDEX))
        return [ROOT_INDEX, self._index[program]]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A way to search: a tree and its settings."""

    name: str
    config: SearchConfig
    tree: Callable[..., SearchTree] = SearchTree


def contenders(simulations: int) -> list[Contender]:
    """The searches compared, at the same number of simulations and without early stops."""
    published = replace(PUBLISHED["drllm"], simulations=simulations, stop_when_found=False)
    ours = SearchConfig(simulations=simulations)
    return [
        # One child a node: selection only ever lengthens the chain, as in the released code.
        Contender(name="chain that never branches", config=replace(published, widening=1.0, widening_power=0.0)),
        Contender(name="random edits", config=published, tree=RandomEdits),
        Contender(name="published constants, branching", config=published),
        Contender(name="default without recall", config=replace(ours, recall=0.0)),
        Contender(name="default without margins", config=replace(ours, margin_scale=None)),
        Contender(name="default", config=ours),
    ]


def search_all(
    contender: Contender, questions: list[Question], num_layers: int, seed: int, run: Callable[..., list[Outcome]]
) -> list[SearchTree]:
    """Search every question; the trees advance in step, as in an evaluator."""
    trees = [
        contender.tree(num_layers=num_layers, config=contender.config, seed=stable_seed(seed, question.example.id))
        for question in questions
    ]
    steps = contender.config.simulations + 1
    for _ in track(range(steps), description=f"{contender.name:<32}", transient=True):
        asked = [(q, tree, p) for q, tree in zip(questions, trees) if (p := tree.propose()) is not None]
        for (_, tree, program), outcome in zip(asked, run([q for q, _, _ in asked], [p for _, _, p in asked])):
            tree.update(program, correct=outcome.correct, margin=outcome.margin)
    return trees


def summarize(trees: list[SearchTree]) -> dict[str, Any]:
    """Counts over questions: shorter where the identity is right, corrected where it is wrong."""
    right = [tree for tree in trees if tree.identity.correct]
    wrong = [tree for tree in trees if not tree.identity.correct]
    saved = [best.program.saved_layers for tree in right if (best := tree.best()) is not None]
    return {
        "right": len(right),
        "shorter": sum(layers > 0 for layers in saved),
        "mean_saved_layers": sum(saved) / max(len(right), 1),
        "wrong": len(wrong),
        "corrected": sum(tree.best() is not None for tree in wrong),
        "evaluations": sum(len(tree.verdicts) for tree in trees),
    }


@click.command()
@click.option("--questions", "num_questions", default=48, show_default=True)
@click.option("--simulations", default=50, show_default=True)
@click.option("--split", default="test", show_default=True, help="The defaults were chosen on 'train'.")
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("search_quality.json"), show_default=True)
def main(num_questions: int, simulations: int, split: str, seed: int, threads: int, out: Path) -> None:
    """Compare searches at equal evaluations."""
    torch.set_num_threads(threads)
    model = FrozenModel.load("smollm2", device="cpu", dtype="float32", cache_bytes=CACHE_BYTES)
    task = get_task("arithmetic")
    examples = task.read(DataRequest(limit=num_questions, split=split, seed=seed))
    questions = [task.prepare(example, model.tokenizer) for example in examples]
    known: dict[tuple[str, LayerProgram], Outcome] = {}

    def run(asked: list[Question], programs: list[LayerProgram]) -> list[Outcome]:
        keys = [(question.example.id, program) for question, program in zip(asked, programs)]
        new = [index for index, key in enumerate(keys) if key not in known]
        if new:
            outcomes = task.scoring.score(
                model, [asked[index] for index in new], [programs[index] for index in new], need_response=False
            )
            known.update(zip([keys[index] for index in new], outcomes))
        return [known[key] for key in keys]

    console = Console()
    table = Table(title=f"{num_questions} questions ({split}), {simulations} simulations each", title_justify="left")
    for column in ("search", "shorter, of right", "mean saved layers", "corrected, of wrong"):
        table.add_column(column, justify="left" if column == "search" else "right")
    results = {}
    for contender in contenders(simulations):
        found = results[contender.name] = summarize(search_all(contender, questions, model.num_layers, seed, run))
        table.add_row(
            contender.name,
            f"{found['shorter']} of {found['right']}",
            f"{found['mean_saved_layers']:.2f}",
            f"{found['corrected']} of {found['wrong']}",
        )
    console.print(table)
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    versions = {package: version(package) for package in ("torch", "transformers")}
    setting = {"questions": num_questions, "simulations": simulations, "split": split, "seed": seed}
    out.write_text(json.dumps({**machine, **versions, **setting, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
