// Compiles a Motoko actor: node moc.mjs FILE.mo FILE.wasm
import { readFileSync, writeFileSync } from "node:fs";
import { compile } from "./motoko.mjs";

const [, , source, target] = process.argv;
if (!source || !target) {
  console.error("usage: node moc.mjs FILE.mo FILE.wasm");
  process.exit(2);
}
const wasm = compile(source, readFileSync(source, "utf8"));
writeFileSync(target, wasm);
console.log(`${target}: ${wasm.length} bytes`);
