"""A menu: the few programs that the prompts of a task share, with their figures, in a folder.

MENU/menu.json           base model, examples, programs and figures; ``finished`` is true once the menu is chosen
MENU/examples.parquet    the examples; see ``router.menu.example_table``
MENU/matrix/*.parquet    outcomes of programs on examples; see ``router.menu.matrix``
MENU/label_scores.parquet   scores of the labels, where all examples have the same; see ``router.menu.label_scores``
MENU/README.md           card
MENU/front.png           the front: length against right answers on held-out examples
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.storage import AnyPath, content, is_there
from router.artifact.base_model import BaseModelRef

MENU_FILE, CARD_FILE, PICTURE_FILE = "menu.json", "README.md", "front.png"
_FORMAT = "drllm-pipeline menu 1"


@dataclass(frozen=True, kw_only=True)
class MenuProgram:
    """A program of a menu, with its figures on examples that it was not chosen on.

    Attributes:
        program: The program.
        on_front: Whether it is right on more of the examples that programs are chosen on than every shorter program.
        right: Share of right answers on the held-out examples.
        low: Lower end of the 95 % interval of that share.
        high: Upper end.
        won: Held-out examples that only this program gets right, and not the base model.
        lost: Held-out examples that only the base model gets right.
        p_value: p-value of McNemar's exact test against the base model, corrected for the number of programs (Holm).
    """

    program: LayerProgram
    on_front: bool
    right: float
    low: float
    high: float
    won: int
    lost: int
    p_value: float

    def to_json(self) -> dict[str, Any]:
        """The program as JSON."""
        return {**asdict(self), "program": str(self.program), "length": len(self.program)}


@dataclass(frozen=True, kw_only=True)
class MenuSettings:
    """What a menu is of: the base model, and the examples that its programs run on.

    Attributes:
        base: The base model.
        dtype: Precision of its weights.
        num_layers: Depth L of the model.
        add_special_tokens: Whether the tokenizer adds special tokens to the prompts.
        task: Name of the task.
        data_sha256: Fingerprint of the examples.
        num_examples: Number of examples.
        num_held_out: Number of examples, at the end of the race's order, that no program is chosen on.
        others: What else decides the outcomes: task options, limits, seeds and budgets, by their names.
    """

    base: BaseModelRef
    dtype: str
    num_layers: int
    add_special_tokens: bool
    task: str
    data_sha256: str
    num_examples: int
    num_held_out: int
    others: Mapping[str, Any] = field(default_factory=dict)

    def flat(self) -> dict[str, Any]:
        """All settings by name. The same weights are the same model, wherever they lie."""
        named = {name: value for name, value in asdict(self).items() if name not in ("base", "others")}
        return {**named, "base model": self.base.revision, **self.others}


@dataclass(frozen=True, kw_only=True)
class Menu:
    """A menu that is chosen.

    Attributes:
        settings: What it is of.
        programs: Its programs, the identity program first.
        notes: How it was found: rounds, evaluations, and the tokens that the layers ran.
    """

    settings: MenuSettings
    programs: list[MenuProgram]
    notes: Mapping[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The menu as ``menu.json`` has it."""
        return _encoded(self.settings, finished=True, programs=[one.to_json() for one in self.programs], **self.notes)


def begun_menu(settings: MenuSettings) -> bytes:
    """``menu.json`` of a menu whose race has begun."""
    return _encoded(settings, finished=False)


def read_settings_of_menu(menu: AnyPath) -> MenuSettings | None:
    """The settings of the menu in a folder, finished or not; None where there is none.

    Raises:
        UserError: ``menu.json`` is damaged, or of another format.
    """
    return _settings(_read(menu), menu) if is_there(menu / MENU_FILE) else None


def read_menu(menu: AnyPath) -> Menu:
    """The menu in a folder.

    Raises:
        UserError: The folder holds none, or one that is not finished, or ``menu.json`` is damaged.
    """
    if not is_there(menu / MENU_FILE):
        raise UserError(f"{menu} is no menu: it has no {MENU_FILE}")
    stored = _read(menu)
    settings = _settings(stored, menu)
    if not stored.get("finished"):
        raise UserError(f"the race for {menu} has not ended; run the same menu command again")
    try:
        programs = [
            MenuProgram(
                **{name: value for name, value in one.items() if name not in ("program", "length")},
                program=LayerProgram.parse(one["program"], settings.num_layers),
            )
            for one in stored["programs"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(menu, error) from None
    numbers = [number for one in programs for number in (one.right, one.low, one.high, one.won, one.lost, one.p_value)]
    if not all(isinstance(number, (int, float)) for number in numbers):
        raise _damaged(menu, "a figure in it is no number")
    if not programs or not programs[0].program.is_identity:
        raise _damaged(menu, "its first program is not the identity program")
    known = {"format", "finished", "programs", *asdict(settings)}
    return Menu(
        settings=settings,
        programs=programs,
        notes={name: note for name, note in stored.items() if name not in known},
    )


def _encoded(settings: MenuSettings, **more: Any) -> bytes:
    return (json.dumps({"format": _FORMAT, **asdict(settings), **more}, indent=1) + "\n").encode()


def _read(menu: AnyPath) -> dict[str, Any]:
    try:
        stored = json.loads(content(menu / MENU_FILE))
    except (OSError, ValueError) as error:
        raise _damaged(menu, error) from None
    if not isinstance(stored, dict):
        raise _damaged(menu, "it holds no object")
    if stored.get("format") != _FORMAT:
        raise UserError(f"{menu / MENU_FILE} has the format {stored.get('format')!r}; this release reads {_FORMAT!r}")
    return stored


def _settings(stored: Mapping[str, Any], menu: AnyPath) -> MenuSettings:
    try:
        named = {name: stored[name] for name in MenuSettings.__dataclass_fields__}
        settings = MenuSettings(**{**named, "base": BaseModelRef(**stored["base"])})
        if not isinstance(settings.others, dict):
            raise TypeError("its other settings are no object")
        texts = (settings.dtype, settings.task, settings.data_sha256, settings.base.name, settings.base.revision)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("a text in it is none")
        whole = (settings.num_layers, settings.num_examples, settings.num_held_out)
        if not all(isinstance(number, int) and number >= 1 for number in whole):
            raise ValueError("a number in it is no whole number above 0")
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(menu, error) from None
    return settings


def _damaged(menu: AnyPath, reason: object) -> UserError:
    return UserError(f"{menu / MENU_FILE} is damaged: {reason}")
