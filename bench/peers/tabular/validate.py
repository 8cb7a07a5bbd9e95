"""Checks a table with pandera as the spec of bench/cmd/bench does, and profiles it with
pandas: validate.py ROWS.parquet profile|checks. Prints the seconds without the imports.
"""

import json
import sys
import time

import pandas as pd
import pandera.pandas as pa

QUANTILES = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99]
SCHEMA = pa.DataFrameSchema(
    {
        "id": pa.Column("int64", pa.Check.ge(0)),
        "seen": pa.Column("datetime64[us]"),
        "amount": pa.Column("float64", [pa.Check.ge(0), pa.Check.le(10000)], nullable=True),
        "score": pa.Column("float64", [pa.Check.ge(0), pa.Check.le(1)]),
        "age": pa.Column("float64", [pa.Check.ge(0), pa.Check.le(120)], nullable=True),
        "visits": pa.Column("int64", pa.Check.ge(0)),
        "balance": pa.Column("float64", [pa.Check.ge(-1000), pa.Check.le(1000)], nullable=True),
        "country": pa.Column(str, pa.Check.isin(["de", "es", "fr", "it", "nl", "pl", "pt", "se"])),
        "plan": pa.Column(str, pa.Check.isin(["basic", "free", "pro"]), nullable=True),
        "city": pa.Column(str),
        "active": pa.Column("bool"),
        "joined": pa.Column("datetime64[us]", nullable=True),
    }
)


def profile(rows):
    out = {}
    for name in rows.columns:
        column = rows[name]
        one = {"nulls": int(column.isna().sum()), "distinct": int(column.nunique())}
        if column.dtype.kind in "ifM":
            one |= {"mean": column.mean(), "std": column.std(ddof=0), "min": column.min(), "max": column.max(), "quantiles": column.quantile(QUANTILES).tolist()}
        else:
            one["top"] = column.value_counts().head(20).to_dict()
        out[name] = one
    return out


def main():
    start = time.perf_counter()
    rows = SCHEMA.validate(pd.read_parquet(sys.argv[1]), lazy=True)
    if sys.argv[2] == "profile":
        profile(rows)
    print(json.dumps(time.perf_counter() - start))


main()
