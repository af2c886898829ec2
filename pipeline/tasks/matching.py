r"""The rules by which a written answer matches a reference: ``--match``. Pure functions of texts.

Only the *answer line* is compared: the first line of a response that is not empty. ``could_match`` lets a search stop
reading an answer that has gone wrong already.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal, get_args

#: The names of the rules, as ``--match`` takes them.
Match = Literal["exact", "normalized", "contains", "number", "regex"]
MATCHES: tuple[Match, ...] = get_args(Match)

#: Punctuation that ends an answer, and marks that models put around it: ``**Paris**.``
_FINAL = ".,;:!?\u2026\u3002"
_AROUND = "\"'*`_\u201c\u201d\u2018\u2019\u00ab\u00bb\u201e"
_ARTICLES = frozenset({"a", "an", "the"})
#: A character of a script that puts no space between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese): there a word
#: may stand beside any other.
_UNSPACED_RANGES = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fff\u3005-\u3007\u3021-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    r"\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_UNSPACED = re.compile(f"[{_UNSPACED_RANGES}]")
#: A character of a word of any other script, or a digit.
_WORD = rf"[^\W{_UNSPACED_RANGES}]"
#: A number: not inside a word (``H2O``), with commas between thousands. A unit may follow at once (``42km``), and a
#: minus behind a digit is a hyphen (``10-12``).
_NUMBER = re.compile(
    r"(?<![\w.])[-+\u2212]?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:e[-+]?\d{1,3})?(?!\d)", re.IGNORECASE
)


def answer_line(text: str) -> str:
    """The first line of a response that is not empty, without white space around it."""
    return text.lstrip().partition("\n")[0].rstrip()


def has_answer_line(text: str) -> bool:
    """Whether the answer line of a text that may go on has ended."""
    return "\n" in text.lstrip()


def matches(rule: Match, line: str, references: Sequence[str]) -> bool:
    """Whether an answer line matches one of the references.

    Args:
        rule: ``exact``: to the letter. ``normalized``: the same words; see ``normalized``. ``contains``: the words of
            the reference stand in the line, one after the other. ``number``: the last number of the line equals the
            last number of the reference. ``regex``: the reference is a regular expression for the whole line.
        line: The answer line.
        references: The accepted answers.

    Texts are compared as their characters look (NFC): a letter and its accent may be one character or two.
    """
    line = _composed(line)
    return any(_matches_one(rule, line, _composed(reference)) for reference in references)


def could_match(rule: Match, begun: str, references: Sequence[str]) -> bool:
    """Whether an answer line that begins so may still match. True where only the whole line can tell.

    Args:
        rule: The rule.
        begun: The text so far, whose answer line has not ended.
        references: The accepted answers.
    """
    begun = begun.lstrip().rstrip("\ufffd")  # a character of several bytes may still be on its way
    # An accent may still follow the last letter: compare the letters and accents one by one, without the last accents.
    begun = unicodedata.normalize("NFD", begun)
    begun = begun[: len(begun) - next((n for n, c in enumerate(reversed(begun)) if not unicodedata.combining(c)), 0)]
    wanted = [unicodedata.normalize("NFD", reference) for reference in references]
    match rule:
        case "exact":
            return any(reference.startswith(begun.rstrip()) for reference in wanted)
        case "normalized":
            return any(_could_be_normalized(begun, reference) for reference in wanted)
        case _:
            return True


def flaw_of_reference(rule: Match, reference: str) -> str | None:
    """Why nothing could match a reference, as words behind "the answer"; None for a reference that can be matched."""
    if rule == "number":
        numbers = len(_NUMBER.findall(reference))
        if numbers == 0:
            return f"{reference!r} holds no number, and --match number compares numbers"
        if numbers > 1:
            return (
                f"{reference!r} holds several numbers, of which --match number would compare the last; write one, "
                "such as 0.5 for 1/2 and 1000 for 1 000"
            )
    if rule == "regex":
        try:
            re.compile(_composed(reference))
        except (re.error, OverflowError, RecursionError) as error:
            return f"{reference!r} is no regular expression ({error}), and --match regex takes it for one"
    return None


def normalized(text: str) -> str:
    """A text without what a reader overlooks.

    Letters are in lower case and words one space apart. Final punctuation, and quotation marks and asterisks at both
    ends, are gone. So are the articles a, an and the before another word: an answer "A" stays. A text of nothing else
    stays as it is.
    """
    words = _without_marks(text)
    kept = [word for word, following in zip(words, [*words[1:], None]) if following is None or word not in _ARTICLES]
    return " ".join(kept)


def number_in(text: str) -> Decimal | None:
    """The last number that a text states; None where it states none. Commas separate thousands."""
    found = _NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "").replace("\u2212", "-")) if found else None


def _without_marks(text: str) -> list[str]:
    """The words in lower case, without the marks at both ends of the text; a text of nothing else stays."""
    words = text.casefold().split()
    return " ".join(words).lstrip(_AROUND).rstrip(_AROUND + _FINAL + " ").split() or words


def _matches_one(rule: Match, line: str, reference: str) -> bool:
    match rule:
        case "exact":
            return line == reference
        case "normalized":
            return bool(line) and normalized(line) == normalized(reference)
        case "contains":
            return _contains(line, reference)
        case "number":
            stated, wanted = number_in(line), number_in(reference)
            return stated is not None and stated == wanted
        case "regex":
            return re.fullmatch(reference, line) is not None


def _contains(line: str, reference: str) -> bool:
    if normalized(line) == normalized(reference):
        return True
    words = _without_marks(reference)
    if set(words) <= _ARTICLES:
        # Case alone tells "A" to choose from "a" in running text.
        wanted, text = reference.strip(_AROUND + _FINAL + " "), line
    elif words[-1] in _ARTICLES:
        wanted, text = " ".join(words), " ".join(_without_marks(line))  # "vitamin A" in "Vitamin A is one"
    else:
        wanted, text = normalized(reference), normalized(line)
    before = "" if _UNSPACED.match(wanted[0]) else f"(?<!{_WORD})"
    after = "" if _UNSPACED.match(wanted[-1]) else f"(?!{_WORD})"
    if wanted[0].isdigit() or wanted[0] == ".":
        # 5 does not stand in 1.5, -5 or 1/5. A hyphen behind a word or a number is no sign: 5 stands in 1-5.
        before += r"(?<!\d[.,/])(?<!\d/ )(?<![^\w)][-\u2212])(?<!^[-\u2212])"
    if wanted[-1].isdigit():
        after += r"(?![.,]\d)(?! ?/ ?\d)"
    return re.search(f"{before}{re.escape(wanted)}{after}", text) is not None


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _could_be_normalized(begun: str, reference: str) -> bool:
    """Whether some continuation of ``begun`` has the reference's normal form; False only where none has."""
    words = begun.casefold().split()
    newest = "" if not words or begun[-1:].isspace() else words.pop()
    written, wanted = _bare(words), _bare(reference.casefold().split())
    if wanted[: len(written)] != written:
        return False
    # The newest word may go on.
    newest = newest.lstrip(_AROUND).rstrip(_AROUND + _FINAL)
    following = wanted[len(written) :][:1]
    return any(word.startswith(newest) for word in (*following, *_ARTICLES))


def _bare(words: Sequence[str]) -> list[str]:
    """The words without the marks at their ends and without articles: equal for texts of one normal form."""
    bare = (word.lstrip(_AROUND).rstrip(_AROUND + _FINAL) for word in words)
    return [word for word in bare if word and word not in _ARTICLES]
