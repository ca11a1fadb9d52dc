//! The client commands: thin wrappers over the public API, enough for a first hour without other tools.

mod candid_text;
mod management;
mod output;

use crate::print;
use candid::Principal;
use candid_text::Interface;
use clap::{Args, Subcommand, ValueEnum};
use ic_agent::identity::{AnonymousIdentity, BasicIdentity, Identity, Prime256v1Identity, Secp256k1Identity};
use ic_agent::{Agent, AgentError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use url::{Host, Url};

/// Where the node is and who calls.
#[derive(Args)]
pub struct Connection {
    /// URL of the node's API
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000")]
    url: String,

    /// PEM file with the caller's Ed25519, secp256k1 or P-256 key; the anonymous identity without it
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,

    /// Root key that certificates must verify against, as the node's banner shows it [default: a node on this machine is asked for
    /// its own; any other must be the Internet Computer's]
    #[arg(long, value_name = "HEX", value_parser = RootKey::parse)]
    root_key: Option<RootKey>,
}

/// A root key in its DER form.
#[derive(Clone, Debug)]
struct RootKey(Vec<u8>);

impl RootKey {
    fn parse(text: &str) -> Result<Self, String> {
        let key = hex::decode(text).map_err(|error| error.to_string())?;
        match key.len() {
            ROOT_KEY_BYTES => Ok(Self(key)),
            found => Err(format!("a root key has {ROOT_KEY_BYTES} bytes, not {found}")),
        }
    }
}

/// Length of a BLS12-381 public key in its DER form. Spec: ic-interface-spec #certification-encoding.
const ROOT_KEY_BYTES: usize = 133;

/// Commands that talk to a node.
#[derive(Subcommand)]
pub enum ClientCommand {
    /// Create a canister and print its id
    Create {
        #[command(flatten)]
        connection: Connection,
        /// Cycles that it starts with [default: 100 T]
        #[arg(long)]
        cycles: Option<u128>,
    },
    /// Put a Wasm module (.wasm or .wasm.gz) into a canister
    Install(Install),
    /// Call an update method and print its certified reply
    Call(MethodCall),
    /// Call a query method and print its signed reply
    Query(MethodCall),
    /// Show the node's status, or a canister's
    Status {
        #[command(flatten)]
        connection: Connection,
        /// The canister's id; the node without it
        canister: Option<Principal>,
    },
}

/// What is installed where.
#[derive(Args)]
pub struct Install {
    #[command(flatten)]
    connection: Connection,
    /// The canister's id
    canister: Principal,
    /// The module
    wasm: PathBuf,
    /// Arguments of canister_init or canister_post_upgrade in Candid's text form, such as '(42, "x")'
    #[arg(long, value_name = "CANDID", default_value = "()")]
    args: String,
    /// What happens to the state that is there
    #[arg(long, value_enum, default_value_t = Mode::Install)]
    mode: Mode,
    /// In an upgrade, keep the Wasm memory too, as current Motoko wants it
    #[arg(long)]
    keep_memory: bool,
}

/// A method and its arguments.
#[derive(Args)]
pub struct MethodCall {
    #[command(flatten)]
    connection: Connection,
    /// The canister's id
    canister: Principal,
    /// Method name
    method: String,
    /// Arguments in Candid's text form, such as '(42, "x")'
    #[arg(default_value = "()")]
    args: String,
    /// The canister's interface (.did) [default: its public metadata candid:service, if it has that]
    #[arg(long, value_name = "FILE")]
    candid: Option<PathBuf>,
    /// Print the reply's bytes in hexadecimal instead of Candid's text form
    #[arg(long)]
    raw: bool,
}

/// How code is put in.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Into an empty canister
    Install,
    /// In place of all state
    Reinstall,
    /// Keeping stable memory, with the upgrade hooks
    Upgrade,
}

/// Runs a client command.
pub fn run(command: ClientCommand) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    print(&runtime.block_on(run_async(command))?)
}

async fn run_async(command: ClientCommand) -> Result<String, String> {
    match command {
        ClientCommand::Create { connection, cycles } => {
            Ok(management::create(&connect(&connection).await?, cycles).await?.to_text())
        }
        ClientCommand::Install(install) => run_install(install).await,
        ClientCommand::Call(call) => run_method(call, true).await,
        ClientCommand::Query(call) => run_method(call, false).await,
        ClientCommand::Status { connection, canister } => {
            let agent = connect(&connection).await?;
            match canister {
                Some(canister) => Ok(output::canister(canister, &management::status(&agent, canister).await?)),
                None => Ok(output::node(&agent.status().await.map_err(explain)?)),
            }
        }
    }
}

async fn run_install(install: Install) -> Result<String, String> {
    let Install { connection, canister, wasm, args, mode, keep_memory } = install;
    if keep_memory && mode != Mode::Upgrade {
        return Err("--keep-memory goes with --mode upgrade only".into());
    }
    let module = std::fs::read(&wasm).map_err(|error| format!("{}: {error}", wasm.display()))?;
    let arg = candid_text::encode(&args)?;
    let agent = connect(&connection).await?;
    let bytes = module.len();
    management::install(&agent, canister, module, arg, management::mode(mode, keep_memory)).await?;
    Ok(format!("installed {bytes} bytes into {canister}"))
}

async fn run_method(call: MethodCall, is_update: bool) -> Result<String, String> {
    let agent = connect(&call.connection).await?;
    let interface = interface(&agent, &call).await?;
    let arg = interface.encode(&call.method, &call.args)?;
    let reply = if is_update {
        agent.update(&call.canister, &call.method).with_arg(arg).call_and_wait().await
    } else {
        agent.query(&call.canister, &call.method).with_arg(arg).call().await
    }
    .map_err(explain)?;
    if call.raw { Ok(hex::encode(reply)) } else { interface.decode(&call.method, &reply) }
}

async fn interface(agent: &Agent, call: &MethodCall) -> Result<Interface, String> {
    if let Some(file) = &call.candid {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        return Interface::parse(&text).map_err(|error| format!("{}: {error}", file.display()));
    }
    // Most modules carry no interface, or a private one: then types are guessed.
    match agent.read_state_canister_metadata(call.canister, "candid:service").await {
        Ok(bytes) => {
            Ok(String::from_utf8(bytes).ok().and_then(|text| Interface::parse(&text).ok()).unwrap_or_default())
        }
        Err(_) => Ok(Interface::default()),
    }
}

async fn connect(connection: &Connection) -> Result<Agent, String> {
    let agent = Agent::builder()
        .with_url(&connection.url)
        .with_arc_identity(identity(connection.identity.as_deref())?)
        .with_verify_query_signatures(true)
        .build()
        .map_err(explain)?;
    match &connection.root_key {
        Some(key) => agent.set_root_key(key.0.clone()),
        // A node of one's own has a root key of its own, and nobody is between.
        None if is_on_this_machine(&connection.url) => {
            agent.fetch_root_key().await.map_err(|error| format!("no node answers at {}: {error}", connection.url))?;
        }
        // Whoever answers elsewhere could make up a key: the agent has the Internet Computer's built in.
        None => {}
    }
    Ok(agent)
}

/// Whether the URL's host is this machine, whatever a name server says.
fn is_on_this_machine(url: &str) -> bool {
    match Url::parse(url).as_ref().map(Url::host) {
        Ok(Some(Host::Ipv4(address))) => address.is_loopback(),
        Ok(Some(Host::Ipv6(address))) => address.is_loopback(),
        Ok(Some(Host::Domain(name))) => name == "localhost" || name.ends_with(".localhost"),
        Ok(None) | Err(_) => false,
    }
}

fn identity(file: Option<&Path>) -> Result<Arc<dyn Identity>, String> {
    let Some(file) = file else { return Ok(Arc::new(AnonymousIdentity)) };
    let pem = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    if let Ok(identity) = BasicIdentity::from_pem(&pem[..]) {
        return Ok(Arc::new(identity));
    }
    if let Ok(identity) = Secp256k1Identity::from_pem(&pem[..]) {
        return Ok(Arc::new(identity));
    }
    match Prime256v1Identity::from_pem(&pem[..]) {
        Ok(identity) => Ok(Arc::new(identity)),
        Err(error) => Err(format!("{} holds no Ed25519, secp256k1 or P-256 key: {error}", file.display())),
    }
}

fn explain(error: AgentError) -> String {
    match error {
        AgentError::CertifiedReject { reject, .. } | AgentError::UncertifiedReject { reject, .. } => {
            let code = reject.error_code.map(|code| format!("{code}: ")).unwrap_or_default();
            format!("rejected ({:?}): {code}{}", reject.reject_code, reject.reject_message)
        }
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_on_this_machine_is_asked_for_its_root_key() {
        for here in [
            "http://127.0.0.1:8000",
            "http://127.1.2.3",
            "http://[::1]:8000/",
            "http://localhost",
            "http://x.localhost",
        ] {
            assert!(is_on_this_machine(here), "{here}");
        }
        let elsewhere = [
            "https://icp-api.io",
            "http://192.168.1.2:8000",
            "http://0.0.0.0:8000",
            "http://localhost.example.org",
            "http://127.0.0.1@example.org",
            "http://example.org\\@127.0.0.1",
            "http://notlocalhost",
            "127.0.0.1:8000",
        ];
        for url in elsewhere {
            assert!(!is_on_this_machine(url), "{url}");
        }
    }
}
