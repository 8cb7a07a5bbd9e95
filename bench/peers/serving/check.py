#!/usr/bin/env python3
"""Starts each peer, asks for one row, and prints the answer: check.py MODEL [CACHE].

Run it with any Python 3.10 or later; install.sh has made the environments.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mlc" / "peers"
PROBE = "import json, onnxruntime, sys; print(json.dumps([[i.name, i.type] for i in onnxruntime.InferenceSession(sys.argv[1]).get_inputs()]))"
VALUES = {"tensor(string)": ("BYTES", "a"), "tensor(double)": ("FP64", 1.0), "tensor(float)": ("FP32", 1.0), "tensor(int64)": ("INT64", 1), "tensor(bool)": ("BOOL", True)}


def ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read()


def main() -> None:
    model, cache = os.path.abspath(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else CACHE
    inputs = json.loads(subprocess.check_output([cache / "fastapi" / "bin" / "python", "-c", PROBE, model]))
    row = {name: VALUES[t][1] for name, t in inputs}
    v2 = {"inputs": [{"name": name, "shape": [1, 1], "datatype": VALUES[t][0], "data": [VALUES[t][1]]} for name, t in inputs]}
    for n, (peer, ready, path, body) in enumerate([
        ("fastapi", "/ready", "/predict", row),
        ("mlserver", "/v2/models/model/ready", "/v2/models/model/infer", v2),
        ("bentoml", "/readyz", "/predict", row),
    ]):
        port = 18100 + 10 * n
        started = time.monotonic()
        command = [cache / peer / "bin" / "python", HERE / f"serve_{peer}.py", "--model", model, "--port", str(port)]
        process = subprocess.Popen(command, cwd=HERE, start_new_session=True)
        try:
            while True:
                try:
                    ask(f"http://127.0.0.1:{port}{ready}")
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > started + 120:
                        sys.exit(f"{peer} does not start")
                    time.sleep(0.05)
            print(f"{peer}: ready after {time.monotonic() - started:.1f} s")
            try:
                print(ask(f"http://127.0.0.1:{port}{path}", body).decode())
            except urllib.error.HTTPError as e:
                sys.exit(f"{peer}: {e} {e.read().decode()}")
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


if __name__ == "__main__":
    main()
