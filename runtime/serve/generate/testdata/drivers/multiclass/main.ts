import { Client } from "./dist/client.js";

declare const process: { argv: string[] };
const a = await new Client(process.argv[2]!).predict([{ birdBill: 0.75, birdSex: "female" }, {}], { id: "two" });
const p = a.predictions[0]!;
const q = a.predictions[1]!.probabilities["Gentoo"];
console.log(p.class, p.probabilities["Adelie"], p.probabilities["Chinstrap"], Object.keys(p.probabilities).length, Number.isNaN(q));
