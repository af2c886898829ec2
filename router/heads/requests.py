"""The kinds of routers by their requests: the values of ``train --head``. The module imports no framework.

``router.heads.registry`` says how each kind is trained and loaded.
"""

from __future__ import annotations

from router.heads.early_exit.early_exit_request import EarlyExitRequest
from router.heads.head_request import HeadRequest
from router.heads.per_layer.per_layer_request import PerLayerRequest

#: The request of every kind, by the kind's name.
HEAD_REQUESTS: dict[str, type[HeadRequest]] = {
    request.name: request
    for request in (
        PerLayerRequest,
        EarlyExitRequest,
    )
}
#: Names that commands and routers of earlier releases have.
OLD_NAMES = {"probe": EarlyExitRequest.name}
