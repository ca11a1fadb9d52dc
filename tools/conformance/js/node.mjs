// Starts a node of this tree for a test file and stops it afterwards.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "../../..");

// `run` builds the node; CYCLOTRON names another program to test.
const program = process.env.CYCLOTRON ?? join(root, "target/debug/cyclotron");

/** The counter of tools/canisters, compiled. */
export const counterWasm = () =>
  readFileSync(join(root, "target/canisters/wasm32-unknown-unknown/release/counter.wasm"));

/** Resolves to { url, rootKey, stop } once the node serves. */
export async function startNode() {
  const state = mkdtempSync(join(tmpdir(), "cyclotron-e2e-"));
  const child = spawn(
    program,
    ["start", "--json", "--bind", "127.0.0.1:0", "--no-metrics", "--state-dir", state, "--log", "warn"],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  const exited = new Promise((resolve) => child.once("exit", (code, signal) => resolve({ code, signal })));
  const banner = await Promise.race([
    new Promise((resolve) => createInterface({ input: child.stdout }).once("line", resolve)),
    exited.then(({ code, signal }) => {
      throw new Error(`the node ended before it served: code ${code}, signal ${signal}`);
    }),
  ]);
  const { api, root_key } = JSON.parse(banner);
  return {
    url: api,
    rootKey: root_key,
    async stop() {
      child.kill("SIGINT");
      const { code } = await exited;
      rmSync(state, { recursive: true, force: true });
      if (code !== 0) throw new Error(`the node ended with code ${code}`);
    },
  };
}
