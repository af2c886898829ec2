"""The questions of a search, read once more: rows say what was asked, not how an answer is judged."""

from __future__ import annotations

from pipeline.config import fingerprint
from pipeline.errors import UserError
from pipeline.shards import read_json, read_settings
from pipeline.storage import AnyPath
from pipeline.tasks import DataRequest, Example, get_task


def questions_of(run: AnyPath) -> list[Example]:
    """The questions that a run was told to search, whether or not it has come to them yet.

    Raises:
        UserError: They cannot be read as they were; the message is the reason.
    """
    settings, notes = read_settings(run), read_json(run / "run.json")
    if "imported" in notes:
        raise UserError("they were converted, not searched here")
    try:
        request = DataRequest(
            data=notes.get("data"),
            split=settings["split"],
            limit=settings["limit"],
            seed=settings["seed"],
            renderings=settings.get("permutations", 1),
        )
        examples = get_task(settings["task"]).read(request)
    except (KeyError, ValueError, OSError) as error:
        raise UserError(str(error)) from None
    if fingerprint(examples) != settings["data_sha256"]:
        raise UserError("they have changed")
    return examples
