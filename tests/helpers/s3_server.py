"""A real S3 server on this machine (moto's), whose answers can be made to fail."""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from unittest import mock
from urllib.parse import unquote

import boto3
from moto.moto_server.werkzeug_app import create_backend_app
from s3fs import S3FileSystem
from werkzeug.serving import make_server

SECRET = "wJalrXUtnFEMI/K7MDENG/not-for-logs"


@dataclass
class Fault:
    """What is to go wrong with some requests.

    Attributes:
        how: ``refuse`` answers that the store is too busy, ``forbid`` that the request is not allowed; ``cut`` ends the
            connection before anything is done, ``lose`` after.
        method: Of these requests; ``LIST`` for those that list objects.
        name: The object's name contains it, or the beginning of the names that are listed.
        times: How many of them.
    """

    how: str
    method: str = "PUT"
    name: str = ""
    times: int = 1


@dataclass
class S3Server:
    """The server; ``faults`` is what is to go wrong."""

    port: int = 0
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._counting = threading.Lock()
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._app = create_backend_app("s3")
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.port = self._server.port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find it. The clients' own retries are few: ours are tested."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
        }

    def bucket(self) -> str:
        """A new bucket's URL."""
        # moto keeps what was put for as long as the process lasts, also for the next server.
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=name)
        return f"s3://{name}"

    @cached_property
    def client(self):
        """A client that is none of ours."""
        return boto3.client("s3", endpoint_url=self.environment["AWS_ENDPOINT_URL"])

    def objects(self, url: str) -> dict[str, bytes]:
        """All objects below a URL, by their names from there on."""
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        prefix = f"{prefix}/" if prefix else ""
        client = self.client
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        names = [found["Key"] for page in pages for found in page.get("Contents", [])]
        return {name.removeprefix(prefix): client.get_object(Bucket=bucket, Key=name)["Body"].read() for name in names}

    def stop(self) -> None:
        """Answer no more requests."""
        self._server.shutdown()

    def _answer(self, environ, start_response):
        fault = self._fault_for(environ)
        if fault is None:
            return self._app(environ, start_response)
        if fault.how == "refuse":
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"]
        if fault.how == "forbid":
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
        if fault.how == "lose":
            list(self._app(environ, lambda *_: None))
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        start_response("503 Gone", [])
        return []

    def _fault_for(self, environ) -> Fault | None:
        method, name = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if "list-type=" in environ["QUERY_STRING"]:
            method, name = "LIST", unquote(environ["QUERY_STRING"])
        with self._counting:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and fault.name in name:
                    fault.times -= 1
                    return fault
        return None


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server that this process and those that it starts find."""
    server = S3Server()
    with mock.patch.dict(os.environ, server.environment):
        # fsspec keeps clients, and theirs would still be those of another test's server.
        S3FileSystem.clear_instance_cache()
        yield server
        S3FileSystem.clear_instance_cache()
    server.stop()
