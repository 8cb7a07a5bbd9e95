import { Client } from "./dist/client.js";

declare const process: { argv: string[] };
const a = await new Client(process.argv[2]!).predict([{ dayPressure: 1000, dayHoliday: true }], { id: "two" });
console.log(a.predictions[0]!.prediction);
