"""Asks the service in every way that the test has an answer for, and prints what came."""

import dataclasses
import sys
from datetime import datetime, timedelta, timezone
from typing import Any

from flights_api import Client, Error, Response, Row

client = Client(url=sys.argv[1] + "/", bearer="token", api_key="key", retries=2)
rows = [
    Row(flight_carrier="AA", flight_distance=2500, flight_departs=datetime(2024, 1, 31, 12, tzinfo=timezone.utc)),
    Row(
        flight_carrier="O'Hare \"*/",
        flight_distance=7500,
        flight_stops=2,
        flight_night=True,
        flight_departs=datetime(2024, 7, 1, 1, 30, 0, 250000, tzinfo=timezone(timedelta(hours=2))),
        origin_day_wind=1.5,
        origin_day_wind_2="ü",
    ),
]


def ask(id: str, rows: list[Row]) -> Response:
    return client.predict(rows, id=id, key="caller")


def text(x: object) -> str:
    return str(x).lower() if isinstance(x, bool) else f"{x:g}" if isinstance(x, float) else str(x)


a = ask("two", rows)
print("two:", a.id, a.model, a.version, a.variant, text(a.fallback))
for p in a.predictions:
    print(text(p.probability), text(p.decision))
print("shed:", text(len(ask("shed", rows).predictions) == 2))
for id in ("down", "later", "html", "redirect"):
    try:
        ask(id, rows)
    except Error as e:
        print(id + ":", text(e.status != 200))
        if id == "later":
            print(e.status, e.text, e.id, text(e.retry_after))
try:
    bad: Any = "ZZ"
    ask("bad", [dataclasses.replace(rows[0], flight_carrier=bad), dataclasses.replace(rows[1], flight_distance=-1)])
except Error as e:
    print("bad:", e.status, len(e.faults))
    for f in e.faults:
        print(f.path)
client.timeout = 0.1
try:
    ask("hang", rows)
except OSError:
    print("hang: true")
