// An unmodified @icp-sdk/core client against a node of this tree.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Actor, Certificate, HttpAgent, lookupResultToBuffer } from "@icp-sdk/core/agent";
import { IDL } from "@icp-sdk/core/candid";
import { Ed25519KeyIdentity } from "@icp-sdk/core/identity";
import { Principal } from "@icp-sdk/core/principal";
import { counterWasm, startNode } from "./node.mjs";
import { compileMotoko } from "./motoko.mjs";

const management = ({ IDL }) =>
  IDL.Service({
    provisional_create_canister_with_cycles: IDL.Func(
      [IDL.Record({ amount: IDL.Opt(IDL.Nat) })],
      [IDL.Record({ canister_id: IDL.Principal })],
      [],
    ),
    install_code: IDL.Func(
      [
        IDL.Record({
          mode: IDL.Variant({
            install: IDL.Null,
            reinstall: IDL.Null,
            upgrade: IDL.Opt(
              IDL.Record({
                skip_pre_upgrade: IDL.Opt(IDL.Bool),
                wasm_memory_persistence: IDL.Opt(IDL.Variant({ keep: IDL.Null, replace: IDL.Null })),
              }),
            ),
          }),
          canister_id: IDL.Principal,
          wasm_module: IDL.Vec(IDL.Nat8),
          arg: IDL.Vec(IDL.Nat8),
        }),
      ],
      [],
      [],
    ),
  });

const counterIdl = ({ IDL }) =>
  IDL.Service({
    increment: IDL.Func([], [IDL.Nat], []),
    increment_then_trap: IDL.Func([], [], []),
    increment_other: IDL.Func([IDL.Principal], [IDL.Nat], []),
    increment_and_call_trap: IDL.Func([IDL.Principal], [IDL.Text], []),
    get: IDL.Func([], [IDL.Nat], ["query"]),
    get_certified: IDL.Func([], [IDL.Nat, IDL.Opt(IDL.Vec(IDL.Nat8))], ["query"]),
    whoami: IDL.Func([], [IDL.Principal], ["query"]),
    random: IDL.Func([], [IDL.Vec(IDL.Nat8)], []),
  });

// Any canister id of the subnet leads a creation to it; this is the first that a local network gives out.
const anyCanister = Principal.fromText("bnz7o-iuaaa-aaaaa-qaaaa-cai");

let node, agent, ic, identity;

before(async () => {
  node = await startNode();
  identity = Ed25519KeyIdentity.generate();
  // shouldFetchRootKey takes the root key from /api/v2/status; query signatures are verified by default.
  agent = await HttpAgent.create({ host: node.url, identity, shouldFetchRootKey: true });
  ic = Actor.createActor(management, {
    agent,
    canisterId: Principal.managementCanister(),
    callTransform: (_method, args) => ({ effectiveCanisterId: args[0]?.canister_id ?? anyCanister }),
  });
});

after(() => node?.stop());

async function install(wasm, idl, mode = { install: null }, canisterId = undefined) {
  canisterId ??= (await ic.provisional_create_canister_with_cycles({ amount: [] })).canister_id;
  await ic.install_code({ mode, canister_id: canisterId, wasm_module: wasm, arg: new Uint8Array(IDL.encode([], [])) });
  return { canisterId, actor: Actor.createActor(idl, { agent, canisterId }) };
}

test("the root key of the status is the banner's", async () => {
  assert.equal(Buffer.from(agent.rootKey).toString("hex"), node.rootKey);
});

test("a thousand updates and a thousand queries, each certified or signed", async () => {
  const { actor } = await install(counterWasm(), counterIdl);
  for (let n = 1n; n <= 1000n; n++) assert.equal(await actor.increment(), n);
  for (let n = 0; n < 1000; n++) assert.equal(await actor.get(), 1000n);
});

test("the caller is who signed", async () => {
  const { actor } = await install(counterWasm(), counterIdl);
  assert.equal((await actor.whoami()).toText(), identity.getPrincipal().toText());
});

test("a trap leaves the state as it was", async () => {
  const { actor } = await install(counterWasm(), counterIdl);
  await actor.increment();
  await assert.rejects(actor.increment_then_trap(), /after the write/);
  assert.equal(await actor.get(), 1n);
});

test("an upgrade keeps the state", async () => {
  const { actor, canisterId } = await install(counterWasm(), counterIdl);
  for (let n = 0; n < 3; n++) await actor.increment();
  await install(counterWasm(), counterIdl, { upgrade: [] }, canisterId);
  assert.equal(await actor.get(), 3n);
});

test("canisters call each other, and a callee's trap is the caller's reject", async () => {
  const a = await install(counterWasm(), counterIdl);
  const b = await install(counterWasm(), counterIdl);
  assert.equal(await a.actor.increment_other(b.canisterId), 1n);
  assert.equal(await b.actor.get(), 1n);
  assert.match(await a.actor.increment_and_call_trap(b.canisterId), /after the write/);
  assert.equal(await a.actor.get(), 1n);
  assert.equal(await b.actor.get(), 1n);
});

test("random bytes come from the management canister and differ", async () => {
  const { actor } = await install(counterWasm(), counterIdl);
  const [first, second] = [await actor.random(), await actor.random()];
  assert.equal(first.length, 32);
  assert.notDeepEqual(first, second);
});

test("a certified variable verifies, and a flipped byte does not", async () => {
  const { actor, canisterId } = await install(counterWasm(), counterIdl);
  await actor.increment();
  const [count, [bytes]] = await actor.get_certified();
  const certificate = await Certificate.create({ certificate: bytes, rootKey: agent.rootKey, principal: { canisterId } });
  const data = lookupResultToBuffer(certificate.lookup_path(["canister", canisterId.toUint8Array(), "certified_data"]));
  assert.equal(Buffer.from(data).readBigUInt64BE(), count);
  const broken = Uint8Array.from(bytes);
  broken[broken.length >> 1] ^= 1;
  await assert.rejects(Certificate.create({ certificate: broken, rootKey: agent.rootKey, principal: { canisterId } }));
});

test("a Motoko actor runs, keeps its state over an upgrade, and traps without a trace", async () => {
  const wasm = compileMotoko("counter.mo");
  const idl = ({ IDL }) =>
    IDL.Service({
      increment: IDL.Func([], [IDL.Nat], []),
      incrementThenTrap: IDL.Func([], [], []),
      get: IDL.Func([], [IDL.Nat], ["query"]),
    });
  const { actor, canisterId } = await install(wasm, idl);
  assert.equal(await actor.increment(), 1n);
  assert.equal(await actor.increment(), 2n);
  await assert.rejects(actor.incrementThenTrap());
  assert.equal(await actor.get(), 2n);
  const keep = { upgrade: [{ skip_pre_upgrade: [], wasm_memory_persistence: [{ keep: null }] }] };
  await install(wasm, idl, keep, canisterId);
  assert.equal(await actor.get(), 2n);
});
