"""Trains LightGBM with the settings of bench/cmd/bench: boost.py ROWS.bin TRAIN TEST
COLUMNS ROUNDS. Prints the seconds from the matrix to the model, and the AUC of the
rows that are held out.
"""

import json
import sys
import time

import lightgbm as lgb
import numpy as np
from scipy.stats import rankdata

PARAMS = {
    "objective": "binary",
    "num_leaves": 63,
    "learning_rate": 0.1,
    "max_bin": 255,
    "min_data_in_leaf": 20,
    "lambda_l2": 1.0,
    "num_threads": 2,
    "verbose": -1,
}


def main():
    path, train, test, columns, rounds = sys.argv[1], *map(int, sys.argv[2:])
    rows = np.fromfile(path, dtype="<f4").reshape(train + test, columns + 1)
    x, y = np.ascontiguousarray(rows[:train, :columns]), rows[:train, columns].copy()
    held, truth = np.ascontiguousarray(rows[train:, :columns]), rows[train:, columns] == 1
    start = time.perf_counter()
    model = lgb.train(PARAMS, lgb.Dataset(x, y, params=PARAMS), num_boost_round=rounds)
    took = time.perf_counter() - start
    ranks, positive = rankdata(model.predict(held, num_threads=2)), truth.sum()
    auc = (ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * (test - positive))
    print(json.dumps({"seconds": took, "auc": auc}))


main()
