r"""What math-verify does not see in a written answer: units, bases, spaces between digits, and powers as ``1e3``.

math-verify reads ``5 km`` and ``5 cm`` as 5, ``11_7`` and ``11_6`` as 11, ``1\,000`` as 1 times 0, and ``1e3`` as a
product with Euler's number. Here an answer becomes a text that math-verify reads rightly, its unit, and its base.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Spaces that LaTeX writes between groups of three digits, and a comma that it keeps from being a list's.
_DIGIT_GAP = re.compile(r"(?<=\d)(?:\\[,!;: ]|~|\{,\}|\\thinspace\s*| (?=\d{3}(?!\d)))(?=\d{3}(?!\d))")
_POWER_OF_TEN = re.compile(r"(?<![\w\\])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})(?!\w)")
#: Digits with a subscript, which is their base: ``1011_2``, ``11_{7}``, ``1a_{\text{sixteen}}``.
_BASE = re.compile(r"(\d[0-9A-Fa-f]*)_(?:\{?(\d{1,2})\}?|\{?\\text\{(\w+)\}\}?)")
_BASE_WORDS = {
    **{"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9"},
    **{"ten": "10", "eleven": "11", "twelve": "12", "sixteen": "16"},
}
#: Text in LaTeX, and upright letters, which units have.
_TEXT = re.compile(r"\\(?:text|textbf|textrm|mbox)\{([^{}]*)\}")
_UPRIGHT = re.compile(r"\\mathrm\{([^{}]*)\}")
_UPRIGHT_LETTER = re.compile(r"\\mathrm\{([A-Za-z])\}")
_CURRENCIES = {"\\$": "dollar", "$": "dollar", "€": "euro", "£": "pound sterling"}
_NUMBER = (
    r"[-+]?(?:\d+/\d+|\d[\d,]*(?:\.\d+)?|\.\d+|\\[dt]?frac\{[^{}]*\}\{[^{}]*\})"
    r"(?:\s*\\(?:times|cdot)\s*10\^(?:\{-?\d+\}|\d))?"
)
#: A number, and words behind it, perhaps with a power.
_WITH_WORDS = re.compile(
    rf"(?P<currency>\\\$|\$|€|£)?\s*(?P<number>{_NUMBER})(?P<gap>\s*)(?P<words>[A-Za-zµ][A-Za-zµ./ ]*?)?"
    r"(?:\s*\^\s*\{?(?P<power>\d)\}?)?\s*\.?"
)
#: One name for each unit, by its other spellings.
_UNIT_NAMES = {
    **{"mm": "millimeter", "cm": "centimeter", "m": "meter", "km": "kilometer", "in": "inch", "ft": "foot"},
    **{"feet": "foot", "inche": "inch", "yd": "yard", "mi": "mile", "mg": "milligram", "g": "gram", "kg": "kilogram"},
    **{"lb": "pound", "oz": "ounce", "ml": "milliliter", "l": "liter", "s": "second", "sec": "second"},
    **{"min": "minute", "h": "hour", "hr": "hour", "usd": "dollar", "metre": "meter", "millimetre": "millimeter"},
    **{"centimetre": "centimeter", "kilometre": "kilometer", "litre": "liter", "millilitre": "milliliter"},
    **{"mph": "mile per hour", "kmh": "kilometer per hour", "kph": "kilometer per hour", "sq": "square"},
}
_UNITS = frozenset(" ".join(_UNIT_NAMES.values()).split()) - {"per", "square"}
#: Words behind a number that make another number of it.
_MULTIPLES = {"dozen": "12", "hundred": "100", "thousand": "1000", "million": "10^{6}", "billion": "10^{9}"}
#: Words behind a number that are no unit, but functions, constants and parts.
_NO_UNITS = frozenset(
    [
        *("sin", "cos", "tan", "cot", "csc", "log", "exp", "sqrt", "factorial", "mod", "pi", "theta", "alpha", "beta"),
        *("half", "halves", "third", "thirds", "quarter", "quarters", "fourth", "fourths", "fifth", "fifths"),
        *("squared", "cubed", "times", "plus", "minus", "percent", "per", "and", "or"),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenAnswer:
    """An answer in the notation that math-verify reads.

    Attributes:
        text: The answer without its unit and base.
        unit: The words behind its number, in one form for all spellings of a unit; empty where there are none.
        base: The base of its digits; empty where there is none, and for the usual base 10.
    """

    text: str
    unit: str = ""
    base: str = ""


def read_answer(content: str) -> WrittenAnswer:
    """Read the content of a box, or a reference answer."""
    content = content.strip()
    if len(content) > 2 and content[0] == content[-1] == "$":
        content = content[1:-1].strip()
    text = _POWER_OF_TEN.sub(r"\1\\times 10^{\2}", _DIGIT_GAP.sub("", content))
    based = _BASE.fullmatch(text)
    if based is not None:
        base = based[2] or _BASE_WORDS.get(based[3], based[3])
        return WrittenAnswer(text=based[1].lstrip("0") or "0", base="" if base == "10" else base)
    # math-verify drops upright letters, of which i and e are numbers.
    return _measured(text) or WrittenAnswer(text=_UPRIGHT_LETTER.sub(r" \1", text))


def differ_in_notation(answer: WrittenAnswer, reference: WrittenAnswer) -> bool:
    """Whether two answers differ in their units or bases, or in digits that a base gives another meaning.

    An answer may leave out the unit or the base that the question asks for, and add words to the unit ("5 years old").
    """
    if answer.unit and reference.unit:
        ours, theirs = answer.unit.split(), reference.unit.split()
        if ours[: len(theirs)] != theirs and theirs[: len(ours)] != ours:
            return True
    if answer.base and answer.base != reference.base:
        return True
    return bool(reference.base) and answer.text.lstrip("0").lower() != reference.text.lstrip("0").lower()


def _measured(text: str) -> WrittenAnswer | None:
    """A number with words or a currency; None for any other answer."""
    marked = _TEXT.search(text) is not None
    plain = _UPRIGHT.sub(r"\1", _TEXT.sub(r" \1 ", text)).replace("\\ ", " ").replace("\\,", " ")
    found = _WITH_WORDS.fullmatch(" ".join(plain.split()))
    if found is None or not (found["words"] or found["currency"]):
        return None
    said = (found["words"] or "").lower().replace("/", " per ").replace(".", "").split()
    upright = _UPRIGHT.search(text) is not None
    # "3m" and "3 m" may be three times m: a letter is a unit only where it is marked, upright, or behind a slash.
    lone = any(len(word) == 1 and before != "per" for before, word in zip(["", *said], said))
    if lone and not (marked or upright):
        return None
    words = [_unit_word(word) for word in said]
    number = found["number"].strip()
    if words and words[0] in _MULTIPLES:
        number, words = f"{number} \\cdot {_MULTIPLES[words[0]]}", words[1:]
    words = " ".join(words).split()  # the name of a unit may be several words
    if words and not _are_unit(words, marked=marked, apart=bool(found["gap"]) and not upright):
        return None
    unit = " ".join(words) or (_CURRENCIES[found["currency"]] if found["currency"] else "")
    if found["power"] is not None:
        if not words:
            return None
        prefix = {"2": "square", "3": "cubic"}.get(found["power"])
        unit = f"{prefix} {unit}" if prefix else f"{unit} to the {found['power']}"
    return WrittenAnswer(text=number, unit=unit)


def _are_unit(words: list[str], *, marked: bool, apart: bool) -> bool:
    """Whether words behind a number are its unit; unmarked letters may be variables, as in 3x and 2ab.

    Args:
        words: The words, each in its unit's one form.
        marked: Whether LaTeX marks them as text.
        apart: Whether they are plain letters with a space before them.
    """
    if words[0] in _NO_UNITS:
        return False
    known = words[0] in _UNITS or words[0] in ("square", "cubic")
    return marked or known or (apart and all(len(word) > 2 or word == "of" for word in words))


def _unit_word(word: str) -> str:
    singular = word[:-1] if len(word) > 2 and word.endswith("s") and not word.endswith("ss") else word
    return _UNIT_NAMES.get(word, _UNIT_NAMES.get(singular, singular if len(word) > 3 else word))
