// Compiles Motoko with the npm package `motoko`.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));

/** The Wasm of an actor, given its source. */
export function compile(name, source) {
  const { default: motoko } = createRequire(import.meta.url)("motoko");
  motoko.write(name, source);
  return Uint8Array.from(motoko.wasm(name, "ic").wasm);
}

/** The Wasm of the actor in a file of this folder. */
export const compileMotoko = (file) => compile(file, readFileSync(join(here, file), "utf8"));
