"""Checks a table with Great Expectations as the spec of bench/cmd/bench does, and profiles
it by the metrics that Great Expectations has for that: expect.py ROWS.parquet
profile|checks. Prints the seconds without the imports.
"""

import json
import sys
import time
import warnings

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.data_context.types.base import ProgressBarsConfig

warnings.filterwarnings("ignore")
QUANTILES = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99]
TYPES = {
    "id": "int64",
    "seen": "datetime64[us]",
    "amount": "float64",
    "score": "float64",
    "age": "float64",
    "visits": "int64",
    "balance": "float64",
    "country": "str",
    "plan": "str",
    "city": "str",
    "active": "bool",
    "joined": "datetime64[us]",
}
NEVER = ["id", "seen", "score", "visits", "country", "city", "active"]
BETWEEN = {"id": (0, None), "amount": (0, 10000), "score": (0, 1), "age": (0, 120), "visits": (0, None), "balance": (-1000, 1000)}
AMONG = {"country": ["de", "es", "fr", "it", "nl", "pl", "pt", "se"], "plan": ["basic", "free", "pro"]}


def expectations(profile):
    yield from (gxe.ExpectColumnValuesToNotBeNull(column=c) for c in NEVER)
    yield from (gxe.ExpectColumnValuesToBeBetween(column=c, min_value=a, max_value=b) for c, (a, b) in BETWEEN.items())
    yield from (gxe.ExpectColumnValuesToBeInSet(column=c, value_set=v) for c, v in AMONG.items())
    if not profile:
        return
    # Bounds that nothing breaks: what is wanted is the value that each observes.
    for c, kind in TYPES.items():
        yield gxe.ExpectColumnUniqueValueCountToBeBetween(column=c)
        if kind in ("int64", "float64"):
            yield gxe.ExpectColumnMeanToBeBetween(column=c)
            yield gxe.ExpectColumnStdevToBeBetween(column=c)
            yield gxe.ExpectColumnMinToBeBetween(column=c)
            yield gxe.ExpectColumnMaxToBeBetween(column=c)
            ranges = {"quantiles": QUANTILES, "value_ranges": [[None, None]] * len(QUANTILES)}
            yield gxe.ExpectColumnQuantileValuesToBeBetween(column=c, quantile_ranges=ranges)


def main():
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    start = time.perf_counter()
    rows = pd.read_parquet(sys.argv[1])
    for column, kind in TYPES.items():
        if rows[column].dtype != kind:
            sys.exit(f"{column} is {rows[column].dtype}")
    asset = context.data_sources.add_pandas("bench").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": rows})
    suite = gx.ExpectationSuite("bench", expectations=list(expectations(sys.argv[2] == "profile")))
    result = batch.validate(suite)
    took = time.perf_counter() - start
    raised = [r for r in result.results if r.exception_info.get("raised_exception", False) or any(isinstance(v, dict) and v.get("raised_exception") for v in r.exception_info.values())]
    if not result.success or raised:
        sys.exit(f"not all expectations hold: {(raised or result.results)[:1]}")
    print(json.dumps(took))


main()
