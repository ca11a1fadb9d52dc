// Compiles a Motoko actor of this folder with the npm package `motoko`.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));

/** Resolves to the Wasm of the actor in `file`. */
export async function compileMotoko(file) {
  const { default: motoko } = createRequire(import.meta.url)("motoko");
  motoko.write(file, readFileSync(join(here, file), "utf8"));
  return Uint8Array.from(motoko.wasm(file, "ic").wasm);
}
