"""The best single program: of those that the training's searches found most often, the best on training examples."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pipeline.errors import UserError
from pipeline.prior import Prior
from pipeline.program import LayerProgram
from pipeline.shards.calibration import PRIOR_FILE, read_prior
from pipeline.shards.reader import read_settings
from pipeline.shards.source_examples import examples_of
from pipeline.storage import AnyPath, is_there
from pipeline.tasks import Example
from router.evaluation.answering_actor import Answer
from router.labels.kept_programs import KeptPrograms
from router.routed.checkpoint import Router

#: Number of candidates for the best single program, and of training examples to compare them on.
CANDIDATES, CHOOSING_EXAMPLES = 16, 192

#: Runs a program for each example, and gives the answers.
RunPrograms = Callable[[Sequence[Example], Sequence[LayerProgram]], list[Answer]]


@dataclass(frozen=True, kw_only=True)
class TrainingRuns:
    """The programs, examples and prior of a training's runs.

    Attributes:
        candidates: Programs that were right on some example, the most frequent first.
        examples: Training examples, on which candidates are compared; those that cannot be read again are missing.
        prior: The prior that guides the search; None without a prior.
    """

    candidates: list[LayerProgram] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    prior: Prior | None = None

    @classmethod
    def read(
        cls, runs: Sequence[tuple[AnyPath, str | None]], router: Router, announce: Callable[[str], None]
    ) -> TrainingRuns:
        """Read those of the runs that still exist.

        Args:
            runs: Each run folder with the place of its examples; None for where the search found them.
            router: The router that was trained on them.
            announce: Receives a line for the user.

        Raises:
            UserError: A run is of another model than the router.
        """
        present = [(run, questions) for run, questions in runs if is_there(run / "run.json")]
        for run, questions in runs:
            if (run, questions) not in present:
                announce(
                    f"Training run {run} cannot be found: no single program is chosen on it. Give its path with --runs."
                )
        examples: list[Example] = []
        prior = None
        for run, questions in present:
            if read_settings(run).get("model.revision") != router.base.revision:
                raise UserError(f"{run} is a search of another model than the router's base, {router.base.name}")
            try:
                examples += examples_of(run, data=questions)
            except UserError as error:
                announce(
                    f"The examples of {run} cannot be read again ({error}), and no program is run on them: the best "
                    "single program is the one that is right on most examples by the run's rows. Say with --questions "
                    "where they are now."
                )
            if prior is None and is_there(run / PRIOR_FILE):
                prior = read_prior(run)
        return cls(candidates=KeptPrograms.read([run for run, _ in present]).ranked, examples=examples, prior=prior)


def choose_single(training: TrainingRuns, *, task: str, most: int, depth: int, ask: RunPrograms) -> LayerProgram | None:
    """The program of at most ``most`` layers that is right on most of some training examples.

    Args:
        training: The candidates, and the examples to compare them on.
        task: Name of the task; examples of other tasks are not used.
        most: Most layers of the program.
        depth: Depth L of the model.
        ask: Runs programs on examples, one program an example.

    Returns:
        The program; without training examples the most frequent candidate, None without candidates.
    """
    examples = [example for example in training.examples if example.task == task]
    random.Random("choosing questions").shuffle(examples)
    examples = examples[:CHOOSING_EXAMPLES]
    candidates = [program for program in training.candidates if len(program) <= most][:CANDIDATES]
    if most >= depth:
        candidates = list(dict.fromkeys([*candidates, LayerProgram.identity(depth)]))
    if not candidates or not examples:
        return candidates[0] if candidates else None
    pairs = [(example, program) for program in candidates for example in examples]
    answers = ask([example for example, _ in pairs], [program for _, program in pairs])
    right = Counter(answer.program for answer in answers if answer.correct)
    return min(candidates, key=lambda program: (-right[program], len(program)))
