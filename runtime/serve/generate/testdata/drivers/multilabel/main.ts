import { Client } from "./dist/client.js";

declare const process: { argv: string[] };
const a = await new Client(process.argv[2]!).predict([{ fX: 0.75 }, {}], { id: "two" });
const p = a.predictions[0]!;
const q = a.predictions[1]!.probabilities["sport"];
console.log(p.labels.length, p.labels[0], p.probabilities["news"], Object.keys(p.probabilities).length, a.predictions[1]!.labels.length, Number.isNaN(q));
