"""MLServer with a runtime of one's own: POST /v2/models/model/infer, tensors of shape [N, 1].

A worker of its inference pool a core, as its documentation has it; gRPC and metrics,
which nobody asks, listen on any free ports.
"""

import asyncio
import os
import socket
import tempfile
from pathlib import Path

import numpy as np
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from onnxrow import Model, arguments


class Peer(MLModel):
    """Runs the model on the tensors of a request."""

    async def load(self) -> bool:
        self.model = Model(os.environ["MLC_PEER_MODEL"])
        self.dtypes = dict(self.model.inputs)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        feeds = {}
        for i in payload.inputs:
            if i.datatype == "BYTES":
                feeds[i.name] = np.array(StringCodec.decode_input(i), np.object_).reshape(i.shape)
            else:
                feeds[i.name] = NumpyCodec.decode_input(i).astype(self.dtypes[i.name], copy=False)
        out = self.model.session.run(self.model.outputs, feeds)
        encoded = []
        for name, y in zip(self.model.outputs, out):
            encoded.append(StringCodec.encode_output(name, y.ravel().tolist()) if y.dtype == np.object_ else NumpyCodec.encode_output(name, y))
        return InferenceResponse(model_name=self.name, outputs=encoded)


def free_ports() -> tuple[int, int]:
    """Two ports that are free at the moment."""
    with socket.socket() as a, socket.socket() as b:
        a.bind(("127.0.0.1", 0))
        b.bind(("127.0.0.1", 0))
        return a.getsockname()[1], b.getsockname()[1]


async def main() -> None:
    a = arguments()
    scratch = tempfile.mkdtemp()
    grpc, metrics = free_ports()
    settings = Settings(host="127.0.0.1", http_port=a.port, grpc_port=grpc, metrics_port=metrics, parallel_workers=a.workers, debug=False, environments_dir=scratch, metrics_dir=scratch)
    server = MLServer(settings)
    from serve_mlserver import Peer  # by its name, so that workers find it

    await server.start([ModelSettings(name="model", implementation=Peer)])


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent)
    asyncio.run(main())
