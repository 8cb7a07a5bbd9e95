"""FastAPI + onnxruntime: POST /predict {"group.feature": value} answers the outputs by name.

A worker process a core, uvloop and httptools. The run is inline: it takes
microseconds, less than the way to a thread and back.
"""

import os
from typing import Any

import uvicorn
from fastapi import FastAPI

from onnxrow import Model, arguments

if __name__ == "__main__":
    a = arguments()
    uvicorn.run("serve_fastapi:app", host="127.0.0.1", port=a.port, workers=a.workers, loop="uvloop", http="httptools", access_log=False, log_level="warning")
else:
    model = Model(os.environ["MLC_PEER_MODEL"])
    Row = model.row_type()
    app = FastAPI()

    @app.get("/ready")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/predict")
    async def predict(row: Row) -> dict[str, Any]:  # type: ignore[valid-type]
        return model.predict(row)
