import { Client } from "./dist/client.js";

declare const process: { argv: string[] };
const a = await new Client(process.argv[2]!).predict([{ fX: 7500.0 }, {}], { id: "two" });
const p = a.predictions[0]!;
const q = a.predictions[1]!.score;
console.log(p.score, p.decision, a.predictions[1]!.decision, Number.isNaN(q));
