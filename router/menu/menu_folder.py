"""The folder of a menu for its one writer: a new one, or one whose race was interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.errors import UserError
from pipeline.storage import AnyPath, StorageBusyError, Writer, entries, is_there, writer_of
from router.menu.menu import MENU_FILE, MenuSettings, begun_menu, read_settings_of_menu


@contextmanager
def opened_menu(folder: AnyPath, settings: MenuSettings, announce: Callable[[str], None]) -> Iterator[Writer]:
    """The writer of a menu's folder, which is new or holds a menu of the same settings.

    Args:
        folder: The folder.
        settings: The settings of the menu.
        announce: Receives a line that says why it takes long.

    Raises:
        UserError: The folder holds something else, a menu of other settings, or another process writes it.
    """
    check_folder(folder, settings)
    writer = writer_of(folder)
    try:
        writer.acquire(announce)
    except StorageBusyError:
        raise UserError(f"another process is writing {folder}; wait for its end, or stop it") from None
    except OSError as error:
        raise UserError(f"menu folder {folder} cannot be written: {error.strerror or error}") from None
    try:
        if not is_there(folder / MENU_FILE):
            writer.write(MENU_FILE, begun_menu(settings))
        yield writer
        writer.tidy()
    finally:
        writer.release()


def check_folder(folder: AnyPath, settings: MenuSettings) -> None:
    """Refuse a folder that holds something else than a menu of these settings.

    Raises:
        UserError: It does; the message names the first setting that differs.
    """
    stored = read_settings_of_menu(folder)
    if stored is None:
        if is_there(folder) and any(not entry.name.startswith((".", "_")) for entry in entries(folder)):
            raise UserError(f"{folder} exists and is no menu (it has no {MENU_FILE}); give a new folder to --out")
        return
    before, now = stored.flat(), settings.flat()
    differing = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if differing:
        name = differing[0]
        raise UserError(
            f"{folder} holds a menu of other settings ({name}: {before.get(name)!r} there, {now.get(name)!r} here); "
            "give another folder to --out"
        )
