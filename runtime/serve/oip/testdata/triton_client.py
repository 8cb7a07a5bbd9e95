"""Checks a server of the Open Inference Protocol with Triton's Python client.

    triton_client.py HTTP_ADDRESS GRPC_ADDRESS MODEL [--no-control]

Addresses are host:port. The model may be any that takes and gives tensors; what is
sent follows from its metadata, and what comes back by one way is held against the
others. --no-control leaves out loading and unloading. Prints how many checks passed,
or what failed, and exits with 1 then.
"""

import queue
import sys
import threading
import urllib.error
import urllib.request

import numpy as np
import tritonclient.grpc as tg
import tritonclient.http as th
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

http_address, grpc_address, model = sys.argv[1:4]
control = "--no-control" not in sys.argv[4:]
passed, failures = 0, []


def check(name, ok, why=""):
    global passed
    if ok:
        passed += 1
    else:
        failures.append(f"{name}: {why}" if why != "" else name)


def refused(name, status, call, says=""):
    """The call fails with one of the statuses, and with words of ours."""
    try:
        call()
    except InferenceServerException as e:
        ok = str(e.status()) in status and says in (e.message() or "")
        check(name, ok, f"{e.status()}: {e.message()}")
    else:
        check(name, False, "it is taken")


def equal(a, b):
    if a is None or b is None or a.dtype != b.dtype or a.shape != b.shape:
        return False
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))


http = th.InferenceServerClient(http_address, concurrency=4)
grpc = tg.InferenceServerClient(grpc_address)

# Health and metadata.
check("http live", http.is_server_live())
check("http ready", http.is_server_ready())
check("http model ready", http.is_model_ready(model))
check("http model not ready", not http.is_model_ready("no-such-model"))
check("grpc live", grpc.is_server_live())
check("grpc ready", grpc.is_server_ready())
check("grpc model ready", grpc.is_model_ready(model))
check("grpc model not ready", not grpc.is_model_ready("no-such-model"))
server, server_g = http.get_server_metadata(), grpc.get_server_metadata(as_json=True)
check("server metadata", server["name"] and "binary_tensor_data" in server["extensions"], server)
check("server metadata alike", server == server_g, server_g)
meta = http.get_model_metadata(model)
meta_g = grpc.get_model_metadata(model)
check("model metadata", meta["name"] == model and meta["platform"] == "onnx_onnxv1" and meta["inputs"] and meta["outputs"], meta)


def listed(ts):
    return [(t.name, t.datatype, list(t.shape)) for t in ts]


check("model metadata of inputs alike", [(t["name"], t["datatype"], t["shape"]) for t in meta["inputs"]] == listed(meta_g.inputs), meta_g)
check("model metadata of outputs alike", [(t["name"], t["datatype"], t["shape"]) for t in meta["outputs"]] == listed(meta_g.outputs), meta_g)
version = meta["versions"][0]
check("versions alike", list(meta_g.versions) == meta["versions"], meta_g)
check("metadata of a version", http.get_model_metadata(model, version)["name"] == model)
check("grpc metadata of a version", grpc.get_model_metadata(model, version).name == model)
check("a version is ready", http.is_model_ready(model, version) and grpc.is_model_ready(model, version))

# Configuration, as perf_analyzer reads it.
config, config_g = http.get_model_config(model), grpc.get_model_config(model).config
rows = config["max_batch_size"]
check("config", config["name"] == model and isinstance(rows, int), config)
check("config alike", config_g.name == model and config_g.max_batch_size == rows, config_g)
check("config has no batch dimension", all(len(c["dims"]) == len(m["shape"]) - (rows > 0) for c, m in zip(config["input"], meta["inputs"])), config)
check("config of inputs alike", [list(i.dims) for i in config_g.input] == [i["dims"] for i in config["input"]], config_g)

# Inference.
rng = np.random.default_rng(7)


def array(datatype, shape):
    if datatype == "BYTES":
        return np.array([f"tëxt {i}" for i in range(int(np.prod(shape)))], dtype=np.object_).reshape(shape)
    if datatype == "BOOL":
        return rng.integers(0, 2, shape).astype(bool)
    dtype = triton_to_np_dtype("FP32" if datatype == "BF16" else datatype)
    return (rng.random(shape) * 3 if np.dtype(dtype).kind == "f" else rng.integers(0, 4, shape)).astype(dtype)


def arrays(n):
    """Data for n rows: the first variable dimension of each input is n, others are 1."""
    out = {}
    for t in meta["inputs"]:
        shape = [n if i == 0 and d < 0 else max(d, 1) for i, d in enumerate(t["shape"])]
        out[t["name"]] = (t["datatype"], array(t["datatype"], shape))
    return out


def inputs(kind, data, binary=True):
    out = []
    for name, (datatype, x) in data.items():
        i = kind.InferInput(name, list(x.shape), datatype)
        if kind is th:
            # JSON has no form for numbers of 16 bits.
            i.set_data_from_numpy(x, binary_data=binary or datatype in ("FP16", "BF16"))
        else:
            i.set_data_from_numpy(x)
        out.append(i)
    return out


half = {t["name"] for t in meta["outputs"] if t["datatype"] in ("FP16", "BF16")}
names = [t["name"] for t in meta["outputs"]]


def outputs(binary):
    return [th.InferRequestedOutput(n, binary_data=binary or n in half) for n in names]


def results(r):
    return {n: r.as_numpy(n) for n in names}


two = arrays(2 if rows != 1 else 1)
want = results(http.infer(model, inputs(th, two)))
check("binary", all(x is not None for x in want.values()), want)
check("datatypes and shapes", all(
    (want[t["name"]].dtype == triton_to_np_dtype(t["datatype"]) or t["datatype"] in ("BYTES", "BF16")) and len(want[t["name"]].shape) == len(t["shape"]) for t in meta["outputs"]), want)


def text(d):
    """BYTES are bytes in binary and texts in JSON; both as bytes."""
    enc = lambda v: v.encode() if isinstance(v, str) else v
    return {n: np.array([enc(v) for v in x.ravel()], dtype=np.object_).reshape(x.shape) if x.dtype.kind in "OU" else x for n, x in d.items()}


def alike(name, got):
    a, b = text(want), text(got)
    check(name, all(equal(a[n], b[n]) for n in names), got)


alike("binary to JSON", results(http.infer(model, inputs(th, two), outputs=outputs(False))))
alike("JSON to binary", results(http.infer(model, inputs(th, two, False), outputs=outputs(True))))
alike("JSON to JSON", results(http.infer(model, inputs(th, two, False), outputs=outputs(False))))
mixed = inputs(th, two)
mixed[-1:] = inputs(th, two, False)[-1:]
alike("mixed", results(http.infer(model, mixed)))
alike("grpc raw", results(grpc.infer(model, inputs(tg, two))))
alike("grpc asked outputs", results(grpc.infer(model, inputs(tg, two), outputs=[tg.InferRequestedOutput(n) for n in names])))
alike("http a version", results(http.infer(model, inputs(th, two), model_version=version)))
alike("grpc a version", results(grpc.infer(model, inputs(tg, two), model_version=version)))
alike("inputs in another order", results(http.infer(model, inputs(th, two)[::-1])))
for algorithm in ("gzip", "deflate"):
    alike(f"http {algorithm}", results(http.infer(model, inputs(th, two), request_compression_algorithm=algorithm, response_compression_algorithm=algorithm)))
    alike(f"grpc {algorithm}", results(grpc.infer(model, inputs(tg, two), compression_algorithm=algorithm)))
one = http.infer(model, inputs(th, two), outputs=outputs(True)[:1])
check("one output is asked for", [o["name"] for o in one.get_response()["outputs"]] == names[:1], one.get_response())
check("http id", http.infer(model, inputs(th, two), request_id="é-1").get_response()["id"] == "é-1")
check("grpc id", grpc.infer(model, inputs(tg, two), request_id="é-2").get_response().id == "é-2")
r = grpc.infer(model, inputs(tg, two)).get_response()
check("what answered", r.model_name != "" and r.model_version != "" and len(r.raw_output_contents) == len(r.outputs), r)
check("priority, timeout and parameters of one's own", http.infer(model, inputs(th, two), priority=1, timeout=60_000_000, parameters={"mine": "x"}).get_response()["outputs"])
check("grpc priority, timeout and parameters", grpc.infer(model, inputs(tg, two), priority=1, timeout=60_000_000, parameters={"mine": 1}).get_response().outputs)

# A batch is its rows.
n = min(rows, 5) if rows > 0 else 1
if n > 1:
    batch = arrays(n)
    whole = results(http.infer(model, inputs(th, batch)))
    parts = [results(http.infer(model, inputs(th, {k: (d, x[i : i + 1]) for k, (d, x) in batch.items()}))) for i in range(n)]
    for name in names:
        got = np.concatenate([p[name] for p in parts])
        close = equal(got, whole[name]) if got.dtype.kind in "OUbi" else np.allclose(got, whole[name], rtol=1e-5, equal_nan=True)
        check(f"batch of {name}", close, got)
else:
    check("no batches", rows <= 1, rows)

# Texts.
texts = [k for k, (d, _) in two.items() if d == "BYTES"]
if texts:
    odd = dict(two)
    for k in texts:
        x = odd[k][1].copy()
        x[(0,) * x.ndim] = 'a "quoted"\n\\ 日本 🙂'
        odd[k] = ("BYTES", x)
    a, b = results(http.infer(model, inputs(th, odd, False), outputs=outputs(False))), results(grpc.infer(model, inputs(tg, odd)))
    check("odd texts", all(equal(text(a)[n], text(b)[n]) for n in names), a)

# A body that is the one input.
first = meta["inputs"][0]
single = two[first["name"]][1][:1] if len(first["shape"]) else two[first["name"]][1]
body = single.tobytes() if first["datatype"] != "BYTES" else b"text"


def bare():
    req = urllib.request.Request(f"http://{http_address}/v2/models/{model}/infer", body, {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"})
    with urllib.request.urlopen(req) as resp:
        return th.InferenceServerClient.parse_response_body(resp.read(), header_length=int(resp.headers["Inference-Header-Content-Length"]))


if len(meta["inputs"]) == 1:
    check("a body without JSON", bare().as_numpy(names[0]) is not None)
else:
    try:
        bare()
        check("a body without JSON for many inputs", False, "it is taken")
    except urllib.error.HTTPError as e:
        check("a body without JSON for many inputs", e.code == 400 and b'"error"' in e.read(), e)

# Asynchronous calls and streams.
calls = [http.async_infer(model, inputs(th, two)) for _ in range(8)]
answers = [results(c.get_result()) for c in calls]
check("http async", all(equal(want[n], a[n]) for a in answers for n in names), answers)
done = queue.Queue()
for _ in range(8):
    grpc.async_infer(model, inputs(tg, two), callback=lambda result, error: done.put((result, error)))
got = [done.get(timeout=60) for _ in range(8)]
check("grpc async", all(e is None and all(equal(want[n], results(r)[n]) for n in names) for r, e in got), got)
stream = tg.InferenceServerClient(grpc_address)
stream.start_stream(callback=lambda result, error: done.put((result, error)))
for i in range(5):
    stream.async_stream_infer(model, inputs(tg, two), request_id=f"s{i}")
got = [done.get(timeout=60) for _ in range(5)]
check("stream", all(e is None for _, e in got) and [r.get_response().id for r, _ in got] == [f"s{i}" for i in range(5)], got)
check("stream results", all(e is None and all(equal(want[n], results(r)[n]) for n in names) for r, e in got))
stream.async_stream_infer("no-such-model", inputs(tg, two))
_, error = done.get(timeout=60)
check("stream error", error is not None and "no-such-model" in str(error), error)
stream.async_stream_infer(model, inputs(tg, two))
_, error = done.get(timeout=60)
check("stream goes on", error is None, error)
stream.stop_stream()
ok = []
threads = [threading.Thread(target=lambda: ok.append(all(equal(want[n], results(tg.InferenceServerClient(grpc_address).infer(model, inputs(tg, two)))[n]) for n in names))) for _ in range(4)]
for t in threads:
    t.start()
for t in threads:
    t.join()
check("many clients", ok == [True] * 4, ok)

# Failures.
INVALID, MISSING = "StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND"
refused("http unknown model", ["404"], lambda: http.infer("no-such-model", inputs(th, two)))
refused("grpc unknown model", [MISSING], lambda: grpc.infer("no-such-model", inputs(tg, two)))
refused("http unknown version", ["404"], lambda: http.infer(model, inputs(th, two), model_version="987654"))
refused("grpc unknown version", [MISSING], lambda: grpc.infer(model, inputs(tg, two), model_version="987654"))
refused("http unknown model's metadata", ["404"], lambda: http.get_model_metadata("no-such-model"))
refused("grpc unknown model's config", [MISSING], lambda: grpc.get_model_config("no-such-model"))
refused("http missing input", ["400"], lambda: http.infer(model, [] if len(two) == 1 else inputs(th, two)[1:]), "missing")
refused("grpc missing input", [INVALID], lambda: grpc.infer(model, [] if len(two) == 1 else inputs(tg, two)[1:]), "missing")
wrong = {k: ("INT8" if d != "INT8" else "INT16", np.zeros(x.shape, np.int8 if d != "INT8" else np.int16)) for k, (d, x) in two.items()}
refused("http wrong datatype", ["400"], lambda: http.infer(model, inputs(th, wrong)))
refused("grpc wrong datatype", [INVALID], lambda: grpc.infer(model, inputs(tg, wrong)))
deep = {k: (d, x.reshape((1,) + x.shape)) for k, (d, x) in two.items()}
refused("http wrong shape", ["400"], lambda: http.infer(model, inputs(th, deep)), "shape")
refused("grpc wrong shape", [INVALID], lambda: grpc.infer(model, inputs(tg, deep)), "shape")
extra = {**two, "no-such-input": ("FP32", np.zeros((1,), np.float32))}
refused("http unknown input", ["400"], lambda: http.infer(model, inputs(th, extra)), "no-such-input")
refused("grpc unknown input", [INVALID], lambda: grpc.infer(model, inputs(tg, extra)), "no-such-input")
refused("http unknown output", ["400"], lambda: http.infer(model, inputs(th, two), outputs=[th.InferRequestedOutput("no-such-output")]), "no-such-output")
refused("grpc unknown output", [INVALID], lambda: grpc.infer(model, inputs(tg, two), outputs=[tg.InferRequestedOutput("no-such-output")]), "no-such-output")
refused("http classification", ["501"], lambda: http.infer(model, inputs(th, two), outputs=[th.InferRequestedOutput(names[0], class_count=2)]))
refused("grpc classification", ["StatusCode.UNIMPLEMENTED"], lambda: grpc.infer(model, inputs(tg, two), outputs=[tg.InferRequestedOutput(names[0], class_count=2)]))
cut = inputs(th, two)
cut[0]._raw_data = cut[0]._raw_data[:-1]
cut[0]._parameters["binary_data_size"] = len(cut[0]._raw_data)
refused("http truncated tensor", ["400"], lambda: http.infer(model, cut))
cut = inputs(tg, two)
cut[0]._raw_content = cut[0]._raw_content[:-1]
refused("grpc truncated tensor", [INVALID], lambda: grpc.infer(model, cut))
refused("shared memory", ["400", "404", "501"], lambda: http.get_system_shared_memory_status())

# Statistics.
before = http.get_inference_statistics(model)["model_stats"]
http.infer(model, inputs(th, two))
grpc.infer(model, inputs(tg, two))
after = http.get_inference_statistics(model)["model_stats"]
total = lambda stats: sum(s["inference_stats"]["success"]["count"] for s in stats)
check("statistics count", total(after) >= total(before) + 2, (before, after))
check("statistics of time", after[0]["inference_stats"]["compute_infer"]["ns"] > 0 and after[0]["last_inference"] > 0, after)
check("batch statistics", after[0]["batch_stats"] and after[0]["batch_stats"][0]["batch_size"] >= 1, after)
stats_g = grpc.get_inference_statistics(model).model_stats
check("grpc statistics", stats_g[0].name == model and stats_g[0].inference_stats.success.count >= 2 and stats_g[0].execution_count >= 1, stats_g)
check("statistics of all", any(s["name"] == model for s in http.get_inference_statistics()["model_stats"]))
check("grpc statistics of all", any(s.name == model for s in grpc.get_inference_statistics().model_stats))

# The repository.
index = http.get_model_repository_index()
check("index", any(e["name"] == model and e["state"] == "READY" for e in index), index)
check("grpc index", any(e.name == model and e.state == "READY" for e in grpc.get_model_repository_index().models))
refused("http load of nothing", ["404", "400"], lambda: http.load_model("no-such-model"))
refused("grpc load of nothing", [MISSING, INVALID], lambda: grpc.load_model("no-such-model"))
if control:
    http.unload_model(model)
    check("http unload", not http.is_model_ready(model) and not grpc.is_model_ready(model))
    refused("infer while unloaded", ["503", "404"], lambda: http.infer(model, inputs(th, two)))
    check("index while unloaded", any(e["name"] == model and e["state"] == "UNAVAILABLE" for e in http.get_model_repository_index()))
    http.load_model(model)
    check("http load", http.is_model_ready(model))
    grpc.unload_model(model)
    check("grpc unload", not grpc.is_model_ready(model))
    grpc.load_model(model)
    check("grpc load", grpc.is_model_ready(model))
    alike("infer after loading", results(http.infer(model, inputs(th, two))))

http.close()
grpc.close()
if failures:
    print(f"{len(failures)} of {passed + len(failures)} checks failed")
    for f in failures:
        print(" -", f[:2000])
    sys.exit(1)
print(f"{passed} checks passed")
