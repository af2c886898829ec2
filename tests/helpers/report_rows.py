"""Made-up runs for reports: questions with the programs that were tried on them."""

from __future__ import annotations

import random

import pandas as pd

from pipeline.program import LayerProgram
from pipeline.shards.path_row import path_row
from pipeline.shards.schema import SCHEMA

DEPTH = 6


def frame(questions, *, depth=DEPTH, budget=1.0):
    """Rows of questions, each ``(task, {program: correct})`` with the identity first, as a run keeps all of them."""
    records = []
    identity = tuple(range(depth))
    for number, (task, tried) in enumerate(questions):
        right = [layers for layers, correct in tried.items() if correct and len(layers) <= budget * depth]
        right.sort(key=lambda layers: (len(layers), layers))
        for layers, correct in tried.items():
            records.append(
                path_row(
                    example_id=f"q{number}",
                    task=task,
                    prompt="?",
                    answer="!",
                    response=None,
                    program=LayerProgram(layers, depth),
                    correct=correct,
                    margin=1.0 if correct else -1.0,
                    baseline_correct=tried[identity],
                    rank=right.index(layers) + 1 if layers in right else 0,
                    simulations=len(tried) - 1,
                    evaluations=len(tried),
                    layer_executions=0,
                    model="none",
                    run_id="none",
                )
            )
    return pd.DataFrame(records, columns=SCHEMA.names)


def steps(questions, *, depth=DEPTH, budget=1.0):
    """After how many programs the best one became how short, by question."""
    found = {}
    for number, (_, tried) in enumerate(questions):
        best = []
        for place, (layers, correct) in enumerate(tried.items()):
            if correct and len(layers) <= budget * depth and (not best or len(layers) < best[-1][1]):
                best.append([place, len(layers)])
        found[f"q{number}"] = best
    return found


def random_questions(number, *, depth=DEPTH, tried=8, seed=0):
    """Questions of two tasks with random programs and verdicts."""
    rng = random.Random(seed)
    questions = []
    for _ in range(number):
        verdicts = {tuple(range(depth)): rng.random() < 0.5}
        for _ in range(tried):
            layers = [layer for layer in range(depth) for _ in range(rng.choice([0, 1, 1, 1, 1, 2]))] or [0]
            verdicts.setdefault(tuple(layers), rng.random() < 0.3)
        questions.append((rng.choice(["sums", "letters"]), verdicts))
    return questions
