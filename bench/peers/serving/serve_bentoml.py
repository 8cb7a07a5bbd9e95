"""BentoML: POST /predict {"group.feature": value} answers the outputs by name.

A worker process a core, without traces, access log and metrics. The run is inline: it
takes microseconds, less than the way to a thread and back.
"""

import os
import sys
from typing import Any

import bentoml

from onnxrow import Model, arguments

if __name__ == "__main__":
    a = arguments()
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", "serve", "serve_bentoml:Peer", "--host", "127.0.0.1", "--port", str(a.port)])

Row: Any = Model(os.environ["MLC_PEER_MODEL"]).row_type()


@bentoml.service(
    workers=int(os.environ["MLC_PEER_WORKERS"]),
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Peer:
    def __init__(self) -> None:
        self.model = Model(os.environ["MLC_PEER_MODEL"])

    @bentoml.api
    async def predict(self, row: Row, /) -> dict[str, Any]:
        return self.model.predict(row)
