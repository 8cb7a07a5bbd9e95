import { Client } from "./dist/client.js";

declare const process: { argv: string[] };
const a = await new Client(process.argv[2]!).predict([{ fX: 2.5 }, {}], { id: "two" });
const p = a.predictions[0]!;
const q = a.predictions[1]!.quantiles["0.5"];
console.log(p.quantiles["0.1"], p.quantiles["0.9"], Object.keys(p.quantiles).length, Number.isNaN(q));
