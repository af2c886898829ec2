"""One writer where there are no locks: an object that its holder renews, and that anybody may take who sees it rest.

Nobody's clock is believed but one's own: a lease is over when it has not changed for as long as somebody watched it.
The holder looks before each renewal whether the lease is still its own; one that was out of reach for too long
learns so, and writes no more. Until then both may have written the same groups, whose rows are the same.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable

from upath import UPath

from pipeline.storage import retry as patience
from pipeline.storage.read import content, reaching
from pipeline.storage.retry import patiently
from pipeline.storage.writer import StorageBusyError

LEASE_NAME = ".lock"
RENEW_SECONDS = 5.0
#: How long a lease rests before it is over.
EXPIRY_SECONDS = 30.0
LOOK_SECONDS = 1.0


class Lease:
    """The right to write a folder.

    Args:
        file: The object that says who has it.
    """

    def __init__(self, file: UPath) -> None:
        self._file = file
        self._name = uuid.uuid4().hex.encode()
        self._renewals = 0
        self._ended = threading.Event()
        self._renewer: threading.Thread | None = None
        self.lost = False
        """Whether somebody else has taken it."""

    def acquire(self, announce: Callable[[str], None]) -> None:
        """Take the lease, if need be after its last holder has let it rest.

        Raises:
            StorageBusyError: Somebody else holds it.
            OSError: The store cannot be written.
        """
        while not self._create():
            before = self._read()
            if before is not None and self._expires(before, announce):
                self._put()
                # Whoever has waited for the same lease has put a name there too; the last one holds.
                time.sleep(LOOK_SECONDS)
                break
        if not self._is_mine():
            raise StorageBusyError
        self.lost = False
        # A new one: where a store does not answer, the last renewer may still have to see its own.
        self._ended = threading.Event()
        self._renewer = threading.Thread(target=self._renew, args=(self._ended,), name="lease", daemon=True)
        self._renewer.start()

    def release(self) -> None:
        """Give the lease back; does nothing for who does not hold it."""
        if self._renewer is None:
            return
        self._ended.set()
        self._renewer.join(timeout=EXPIRY_SECONDS)
        self._renewer = None
        with contextlib.suppress(Exception):  # it rests from now on, and is over soon
            if self._is_mine():
                self._file.fs.rm_file(self._file.path)

    def _create(self) -> bool:
        """Whether there was none, and now there is mine; where a store knows such a condition nobody comes between."""
        if self._read() is not None:
            return False
        try:
            self._put(mode="create")
        except FileExistsError:
            return self._is_mine()  # a first try whose answer was lost
        return True

    def _expires(self, before: bytes, announce: Callable[[str], None]) -> bool:
        """Wait for as long as a lease lasts: True if it was not renewed and has expired, False if it was released.

        Raises:
            StorageBusyError: It was renewed.
        """
        announce(
            f"Another search may be writing {self._file.parent}; waiting {EXPIRY_SECONDS:g} seconds for a sign of it."
        )
        deadline = time.monotonic() + EXPIRY_SECONDS
        while time.monotonic() < deadline:
            time.sleep(min(LOOK_SECONDS, EXPIRY_SECONDS / 4))
            now = self._read()
            if now is None:
                return False
            if now != before:
                raise StorageBusyError
        return True

    def _renew(self, ended: threading.Event) -> None:
        while not ended.wait(RENEW_SECONDS):
            # An outage is survived: the lease is renewed after it, or is somebody else's by then.
            with contextlib.suppress(Exception):
                self._look()
                if self.lost:
                    return
                self._renewals += 1
                self._put()

    def _look(self) -> None:
        self.lost = not self._is_mine()

    def _is_mine(self) -> bool:
        now = self._read()
        return now is not None and now.partition(b" ")[0] == self._name

    def _read(self) -> bytes | None:
        try:
            return content(self._file)
        except FileNotFoundError:
            return None

    def _put(self, **options: str) -> None:
        text = self._name + b" %d" % self._renewals
        with reaching(self._file):
            patiently(lambda: self._file.fs.pipe_file(self._file.path, text, **options), patience.READ_PAUSES)
