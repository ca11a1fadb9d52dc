//! What users ask for, by mix: a sequence of requests that its seed and the canisters decide.
//!
//! Enters: a mix, a seed, the canisters that [`crate::fleet`] made for it. Leaves: requests without an end, the same for the same.
//! Never here: a clock, a rate, a signature.

use crate::fleet::{Fleet, HEAP_MIB, Role};
use crate::ledger;
use crate::random::Random;
use crate::user::Users;
use cyclotron_types::ids::CanisterId;
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mix {
    /// Updates of a hundred counters.
    Counters,
    /// Transfers between users on an ICRC ledger, and some looks at balances.
    Transfers,
    /// Updates, and some queries, that read up to the whole of a heap of 16 MiB; one update in four writes to each 64 KiB of it.
    Heaps,
    /// Calls that go through trees of up to forty canisters, and come back.
    Graphs,
    /// Timers that are set, and fire a few times.
    Timers,
    /// Updates with arguments of up to 1.75 MiB.
    Ingress,
    /// Queries of the counters.
    Queries,
    /// All of these, the light ones most often.
    Mixed,
}

impl Mix {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Counters,
        Self::Transfers,
        Self::Heaps,
        Self::Graphs,
        Self::Timers,
        Self::Ingress,
        Self::Queries,
        Self::Mixed,
    ];

    /// As users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counters => "counters",
            Self::Transfers => "transfers",
            Self::Heaps => "heaps",
            Self::Graphs => "graphs",
            Self::Timers => "timers",
            Self::Ingress => "ingress",
            Self::Queries => "queries",
            Self::Mixed => "mixed",
        }
    }

    /// Whether it has updates: a recording holds nothing else.
    pub const fn has_updates(self) -> bool {
        !matches!(self, Self::Queries)
    }

    /// Whether it is nothing without an ICRC ledger; [`Mix::Mixed`] leaves transfers out when there is none.
    pub const fn needs_ledger(self) -> bool {
        matches!(self, Self::Transfers)
    }

    /// Whether it uses a ledger if there is one.
    pub const fn uses_ledger(self) -> bool {
        matches!(self, Self::Transfers | Self::Mixed)
    }

    /// The canisters that it asks, and how many of each role.
    pub const fn roles(self) -> &'static [(Role, usize)] {
        const COUNTERS: (Role, usize) = (Role::Counter, 100);
        const LEDGER: (Role, usize) = (Role::Ledger, 1);
        const HEAPS: (Role, usize) = (Role::Heap, 4);
        const GRAPH: (Role, usize) = (Role::Node, 32);
        const TIMERS: (Role, usize) = (Role::Timer, 64);
        const STORES: (Role, usize) = (Role::Store, 8);
        match self {
            Self::Counters | Self::Queries => &[COUNTERS],
            Self::Transfers => &[LEDGER],
            Self::Heaps => &[HEAPS],
            Self::Graphs => &[GRAPH],
            Self::Timers => &[TIMERS],
            Self::Ingress => &[STORES],
            Self::Mixed => &[COUNTERS, LEDGER, HEAPS, GRAPH, TIMERS, STORES],
        }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|mix| mix.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|mix| mix.name()).collect();
            format!("there is no mix {name:?}; the mixes are {}", known.join(", "))
        })
    }
}

/// How an endpoint is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An update call.
    Update,
    /// A query call.
    Query,
}

impl Kind {
    /// As it is shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::Query => "query",
        }
    }
}

/// What one user asks for once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// How.
    pub kind: Kind,
    /// Number of the user.
    pub user: usize,
    /// Whom.
    pub canister: CanisterId,
    /// Which method.
    pub method: &'static str,
    /// With which argument.
    pub arg: Vec<u8>,
}

/// A mix's requests, one after the other.
#[derive(Clone, Debug)]
pub struct Requests<'a> {
    mix: Mix,
    random: Random,
    users: &'a Users,
    fleet: &'a Fleet,
}

/// Bytes of an argument at most: with all around it, it fits into a message.
const INGRESS_MAX: u64 = 1_792 << 10;
/// Canisters that one message of a graph visits at most.
const VISITS_MAX: u64 = 40;
/// Children of one visit at most.
const CHILDREN_MAX: u64 = 3;
/// Calls below each other at most.
const DEPTH_MAX: u32 = 5;

impl<'a> Requests<'a> {
    /// The requests of a seed.
    pub fn new(mix: Mix, seed: u64, users: &'a Users, fleet: &'a Fleet) -> Self {
        Self { mix, random: Random::new(seed, 1), users, fleet }
    }

    fn of(&mut self, mix: Mix) -> Request {
        match mix {
            Mix::Counters => self.request(Kind::Update, Role::Counter, "increment", Vec::new()),
            Mix::Transfers => self.transfer(),
            Mix::Heaps => self.scan(),
            Mix::Graphs => self.visit(),
            Mix::Timers => self.arm(),
            Mix::Ingress => self.put(),
            Mix::Queries => self.request(Kind::Query, Role::Counter, "get", Vec::new()),
            Mix::Mixed => {
                let mix = self.component();
                self.of(mix)
            }
        }
    }

    /// Which of all mixes is next: out of a thousand.
    fn component(&mut self) -> Mix {
        match self.random.below(1_000) {
            0..400 => Mix::Queries,
            400..700 => Mix::Counters,
            700..880 if self.fleet.has(Role::Ledger) => Mix::Transfers,
            700..880 => Mix::Counters,
            880..940 => Mix::Graphs,
            940..980 => Mix::Timers,
            980..995 => Mix::Heaps,
            _ => Mix::Ingress,
        }
    }

    fn request(&mut self, kind: Kind, role: Role, method: &'static str, arg: Vec<u8>) -> Request {
        let user = usize::try_from(self.random.below(self.users.len() as u64)).unwrap_or(0);
        Request { kind, user, canister: *self.random.pick(self.fleet.of(role)), method, arg }
    }

    fn transfer(&mut self) -> Request {
        let from = usize::try_from(self.random.below(self.users.len() as u64)).unwrap_or(0);
        let to = self.users.principal(usize::try_from(self.random.below(self.users.len() as u64)).unwrap_or(0));
        let canister = self.fleet.of(Role::Ledger)[0];
        if self.random.below(10) == 0 {
            let arg = ledger::balance_of(to);
            return Request { kind: Kind::Query, user: from, canister, method: "icrc1_balance_of", arg };
        }
        // One subaccount of some thousands each: balances that a ledger has to look for.
        let subaccount = self.random.below(4_096);
        let arg = ledger::transfer(to, subaccount, 1 + self.random.below(1_000));
        Request { kind: Kind::Update, user: from, canister, method: "icrc1_transfer", arg }
    }

    fn scan(&mut self) -> Request {
        let kind = if self.random.below(4) == 0 { Kind::Query } else { Kind::Update };
        let stride = *self.random.pick(&[8_u32, 64, 256]);
        let writes = u32::from(kind == Kind::Update && self.random.below(4) == 0);
        let bytes = u32::try_from((1 + self.random.below(HEAP_MIB)) << 20).unwrap_or(u32::MAX);
        let arg = [bytes, stride, writes].map(u32::to_le_bytes).concat();
        self.request(kind, Role::Heap, if kind == Kind::Update { "scan" } else { "sum" }, arg)
    }

    fn visit(&mut self) -> Request {
        let mut left = self.random.below(VISITS_MAX);
        let tree = self.tree(&mut left, DEPTH_MAX);
        self.request(Kind::Update, Role::Node, "visit", tree)
    }

    /// A tree of at most so many canisters below its root.
    fn tree(&mut self, left: &mut u64, depth: u32) -> Vec<u8> {
        let children = if depth == 0 { 0 } else { self.random.below(CHILDREN_MAX + 1).min(*left) };
        *left -= children;
        let mut tree = vec![u8::try_from(children).unwrap_or(0)];
        for _ in 0..children {
            tree.extend_from_slice(self.random.pick(self.fleet.of(Role::Node)).as_slice());
            let child = self.tree(left, depth - 1);
            // At most VISITS_MAX canisters of 13 bytes each.
            tree.extend_from_slice(&u16::try_from(child.len()).unwrap_or(u16::MAX).to_le_bytes());
            tree.extend(child);
        }
        tree
    }

    fn arm(&mut self) -> Request {
        let period_ns = (50 + self.random.below(950)) * 1_000_000;
        let arg = [period_ns, 1 + self.random.below(5)].map(u64::to_le_bytes).concat();
        self.request(Kind::Update, Role::Timer, "arm", arg)
    }

    /// Sizes spread evenly over their orders of magnitude, from 16 KiB on.
    fn put(&mut self) -> Request {
        let order = 14 + self.random.below(7);
        let bytes = ((1 << order) + self.random.below(1 << order)).min(INGRESS_MAX);
        let mut arg = vec![0; usize::try_from(bytes).unwrap_or(0)];
        self.random.fill(&mut arg);
        self.request(Kind::Update, Role::Store, "put", arg)
    }
}

impl Iterator for Requests<'_> {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        Some(self.of(self.mix))
    }
}

const _: () = assert!(VISITS_MAX * 13 < u16::MAX as u64);
