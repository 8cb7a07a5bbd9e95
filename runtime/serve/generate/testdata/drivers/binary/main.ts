// Asks the service in every way that the test has an answer for, and prints what came.
import { Client, Response, Row, ServiceError } from "./dist/client.js";

declare const process: { argv: string[] };
const url = process.argv[2] + "/";
const options = { bearer: "token", apiKey: "key", retries: 2 };
const client = new Client(url, options);
const rows: Row[] = [
  { flightCarrier: "AA", flightDistance: 2500, flightDeparts: new Date("2024-01-31T12:00:00Z"), flightNight: null },
  {
    flightCarrier: "O'Hare \"*/",
    flightDistance: 7500,
    flightStops: 2,
    flightNight: true,
    flightDeparts: new Date("2024-07-01T01:30:00.250+02:00"),
    originDayWind: 1.5,
    originDayWind2: "ü",
  },
];
const ask = (id: string, rows: Row[]): Promise<Response> => client.predict(rows, { id, key: "caller" });

const a = await ask("two", rows);
console.log("two:", a.id, a.model, a.version, a.variant, a.fallback);
for (const p of a.predictions) console.log(p.probability, p.decision);
console.log("shed:", (await ask("shed", rows)).predictions.length === 2);
for (const id of ["down", "later", "html", "redirect"]) {
  try {
    await ask(id, rows);
  } catch (e) {
    // A redirect is no answer to fetch, but a failure.
    console.log(id + ":", id === "redirect" || (e instanceof ServiceError && e.status !== 200));
    if (id === "later" && e instanceof ServiceError) {
      console.log(e.status, e.text, e.id, (e.retryAfter ?? -1) / 1000);
    }
  }
}
try {
  await ask("bad", [
    { ...rows[0]!, flightCarrier: "ZZ" as Row["flightCarrier"] },
    { ...rows[1]!, flightDistance: -1 },
  ]);
} catch (e) {
  if (!(e instanceof ServiceError)) throw e;
  console.log("bad:", e.status, e.faults.length);
  for (const f of e.faults) console.log(f.path);
}
try {
  await new Client(url, { ...options, timeout: 100 }).predict(rows, { id: "hang" });
} catch (e) {
  console.log("hang:", e instanceof DOMException && e.name === "TimeoutError");
}
