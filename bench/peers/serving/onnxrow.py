"""What the peers share: a model of mlc's run on one row at a time.

Every peer has the same session: one thread a run, because each has a process a core.
"""

from __future__ import annotations

import argparse
import os
from typing import Any, Optional

import numpy as np
import onnxruntime
from pydantic import BaseModel, ConfigDict, Field, create_model

DTYPES: dict[str, Any] = {
    "tensor(double)": np.float64,
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}
MISSING = {np.float64: float("nan"), np.float32: float("nan"), np.object_: "\u2400"}


class Model:
    """An ONNX model whose inputs are features of shape [N, 1], by name."""

    def __init__(self, path: str) -> None:
        o = onnxruntime.SessionOptions()
        o.intra_op_num_threads = 1
        o.inter_op_num_threads = 1
        o.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(path, o, providers=["CPUExecutionProvider"])
        self.inputs = [(i.name, DTYPES[i.type]) for i in self.session.get_inputs()]
        self.outputs = [o.name for o in self.session.get_outputs()]

    def row_type(self) -> type[BaseModel]:
        """The type of a row, for frameworks that check requests by one."""
        types = {np.object_: str, np.bool_: bool, np.int64: int}
        fields: dict[str, Any] = {}
        for n, (name, dtype) in enumerate(self.inputs):
            fields[f"f{n}"] = (Optional[types.get(dtype, float)], Field(None, alias=name))
        return create_model("Row", __config__=ConfigDict(extra="forbid"), **fields)

    def predict(self, row: BaseModel) -> dict[str, Any]:
        """The outputs for a row: a number, a text, or a list of numbers."""
        feeds = {}
        for n, (name, dtype) in enumerate(self.inputs):
            value = getattr(row, f"f{n}")
            feeds[name] = np.array([[MISSING[dtype] if value is None else value]], dtype)
        out = self.session.run(self.outputs, feeds)
        return {name: y[0].tolist() if y[0].size > 1 else y[0].item() for name, y in zip(self.outputs, out)}


def arguments() -> argparse.Namespace:
    """The arguments of every peer. Worker processes find them in the environment."""
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True, help="path of model.onnx")
    p.add_argument("--port", required=True, type=int)
    p.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    a = p.parse_args()
    os.environ["MLC_PEER_MODEL"] = os.path.abspath(a.model)
    os.environ["MLC_PEER_WORKERS"] = str(a.workers)
    return a
