"""Tasks from a user's own module, and reading a task's examples: what is found, and what a wrong call is told."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from pipeline.errors import UserError
from pipeline.storage import UnreachableError
from pipeline.tasks import TASKS, DataRequest, Example, get_task, read_or_explain

OWN_TASKS = """
from pipeline.tasks import Example, Task
from pipeline.tasks.scoring.exact_match import ExactMatch

def read(request):
    return [Example(id="e", task="", question="1 + 1 =", answer="2")]

TASK = Task(name="own", summary="", read=read, scoring=ExactMatch(max_new_tokens=8), chat=False, needs_data=False)
"""
EXAMPLE = Example(id="e", task="jsonl", question="1 + 1 =", answer="2")


# -- a task from outside -------------------------------------------------------------------


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """Modules with tasks in the current folder, which is not on the path."""
    (tmp_path / "own_tasks.py").write_text(OWN_TASKS)
    (tmp_path / "broken_tasks.py").write_text("1 / 0")
    (tmp_path / "colorsys.py").write_text(OWN_TASKS)  # the name of a module of Python's own
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield
    sys.modules.pop("own_tasks", None)


def test_a_task_of_ones_own_is_known_by_its_reference(own_module):
    """Catches a task or examples under the task's own name, by which no actor and no later command finds it."""
    task = get_task("own_tasks:TASK")
    assert task.name == "own_tasks:TASK"
    [example] = read_or_explain(task, DataRequest())
    assert (example.task, example.question) == ("own_tasks:TASK", "1 + 1 =")
    shortened = get_task("own_tasks:TASK", max_new_tokens=3)
    assert (shortened.name, shortened.scoring.max_new_tokens) == ("own_tasks:TASK", 3)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:TASK", "cannot be imported: there is no module .*in the current folder and on PYTHONPATH"),
        ("broken_tasks:TASK", "cannot be imported: broken_tasks.py:1: ZeroDivisionError: division by zero$"),
        ("own_tasks:TUSK", ": module 'own_tasks' has no 'TUSK'; did you mean TASK$"),
        ("own_tasks:read", "is of class function, not Task"),
        ("own_tasks:", "is not of the form my_package.my_module:NAME"),
        (":TASK", "is not of the form my_package.my_module:NAME"),
    ],
)
def test_a_task_that_is_not_there_is_refused_by_name(own_module, name, message):
    """Catches a traceback of importlib, and a message that does not say where modules are looked for."""
    with pytest.raises(UserError, match=f"^task '{name}' ?{message}") as refusal:
        get_task(name)
    assert "\n" not in str(refusal.value)


def test_an_unknown_task_is_told_of_both_ways():
    """Catches a message that lists the tasks, and does not say how to name one's own."""
    with pytest.raises(UserError, match=r"unknown task 'own'.*name your own as my_package\.my_module:TASK"):
        get_task("own")


def test_no_file_of_the_current_folder_replaces_an_installed_module(own_module):
    """Catches a current folder that comes before the installed packages."""
    with pytest.raises(UserError, match="module 'colorsys' has no 'TASK'"):
        get_task("colorsys:TASK")


# -- reading examples ----------------------------------------------------------------------


def reading(result):
    """A task whose reader returns or raises something."""

    def read(request):
        if isinstance(result, Exception):
            raise result
        return result

    return replace(TASKS["jsonl"], read=read)


def test_examples_come_as_the_task_reads_them():
    """Catches examples that are changed, or a request that reaches the task as another one."""
    requests = []
    task = replace(TASKS["jsonl"], read=lambda request: requests.append(request) or [EXAMPLE])
    request = DataRequest(data="x.jsonl", limit=1, seed=3, renderings=7)
    assert read_or_explain(task, request) == [EXAMPLE] and requests == [request]


@pytest.mark.parametrize(
    ("task", "request_", "message"),
    [
        ("arc", {}, "needs --data: a file, a folder or a hub data set, for example --data allenai/ai2_arc:ARC-Easy"),
        ("jsonl", {}, "task 'jsonl' needs --data: a file, a folder or a hub data set$"),
        ("arithmetic", {"renderings": 5}, "--permutations 5, but examples of task 'arithmetic' have 4 renderings"),
        ("jsonl", {"data": "none.jsonl"}, "'none.jsonl' does not exist"),
    ],
)
def test_a_request_that_a_task_cannot_meet_is_refused(task, request_, message):
    """Catches an example that is asked in fewer ways than were wanted, and data whose lack is found later."""
    with pytest.raises(UserError, match=message):
        read_or_explain(TASKS[task], DataRequest(**request_))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([], "there are no examples in s3://bucket/x.jsonl"),
        (PermissionError(13, "Permission denied", "x.jsonl"), "^x.jsonl cannot be read: Permission denied$"),
        (OSError("the disk is gone"), "^s3://bucket/x.jsonl?… cannot be read: the disk is gone$"),
        (UserError("line 3: this is not JSON"), "^line 3: this is not JSON$"),
        (UnreachableError("s3://bucket cannot be reached"), "^s3://bucket cannot be reached$"),
    ],
)
def test_why_there_are_no_examples(result, message):
    """Catches a traceback, a message that is wrapped in another one, and the query of a signed URL in a message."""
    with pytest.raises(UserError, match=message.replace("?", r"\?")) as refusal:
        read_or_explain(reading(result), DataRequest(data="s3://bucket/x.jsonl?signature=secret"))
    assert "secret" not in str(refusal.value)


def test_a_task_without_data_is_named_where_it_has_no_examples():
    """Catches a message about None, where a task makes its own examples and made none."""
    with pytest.raises(UserError, match="there are no examples in arithmetic"):
        read_or_explain(replace(TASKS["arithmetic"], read=lambda request: []), DataRequest())


# -- mistakes in a task of one's own -------------------------------------------------------

MISTAKES = """
from pipeline.tasks import Task
from pipeline.tasks.rows import ExampleFields, read_examples
from pipeline.tasks.scoring.choice import Choice
from pipeline.tasks.types import Rendering

def task(to_example):
    def read(request):
        return read_examples(request, task="claims", to_example=to_example)
    return Task(name="claims", summary="", read=read, scoring=Choice(per_character=False), chat=False)

def reads(read):
    return Task(name="claims", summary="", read=read, scoring=Choice(per_character=False), chat=False)

LOST = reads(lambda request: open(1 / 0))
NOTHING = reads(lambda request: None)
ROWS = reads(lambda request: [{"true": "YES"}])
FAILS = task(lambda row: row.txt("true"))
FIELDS = task(lambda row: {"question": "?", "answer": "!"})
OTHERWISE = task(
    lambda row: ExampleFields(
        question="?", answer="yes", options=("yes", "no"), renderings=(Rendering(question="??", answer="maybe"),)
    )
)
UNKNOWN = task(lambda row: ExampleFields(question="?", answer=row.text("true"), options=("yes", "no")))
WITHOUT = task(lambda row: ExampleFields(question="?", answer=row.text("true")))
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("LOST", r"^task 'mistaken_tasks:LOST': the examples cannot be read: mistaken_tasks.py:15: ZeroDivisionError"),
        ("NOTHING", r"^task 'mistaken_tasks:NOTHING': the examples must be a list of Example, found NoneType$"),
        ("ROWS", r"^task 'mistaken_tasks:ROWS': the examples must be a list of Example, found {'true': 'YES'} in it$"),
        ("FAILS", r"claims.jsonl, line 1: .*: mistaken_tasks.py:18: AttributeError: .*'txt'"),
        ("FIELDS", r"claims.jsonl, line 1: the row cannot be made an example: expected ExampleFields, found dict$"),
        ("OTHERWISE", r"claims.jsonl, line 1: answer 'maybe' is not one of the options: yes, no$"),
        ("UNKNOWN", r"claims.jsonl, line 1: answer 'YES' is not one of the options: yes, no$"),
        ("WITHOUT", r"example 'claims-000000' of task 'mistaken_tasks:WITHOUT' has no options, and Choice needs them"),
    ],
)
def test_a_mistake_in_ones_own_task_is_refused_where_the_examples_are_read(own_module, tmp_path, name, message):
    """Catches a traceback of a user's function, and a choice without a right answer that fails only in an actor."""
    (tmp_path / "mistaken_tasks.py").write_text(MISTAKES)
    (tmp_path / "claims.jsonl").write_text('{"true": "YES"}')
    try:
        with pytest.raises(UserError, match=message):
            read_or_explain(get_task(f"mistaken_tasks:{name}"), DataRequest(data="claims.jsonl"))
    finally:
        sys.modules.pop("mistaken_tasks", None)


def test_a_scoring_that_is_none_is_refused_when_the_task_is_built():
    """Catches an AttributeError in an actor for a scoring that is named by a word."""
    with pytest.raises(ValueError, match=r"scoring must be an object such as Choice.*got 'choice'"):
        replace(TASKS["jsonl"], scoring="choice")  # type: ignore[arg-type]
