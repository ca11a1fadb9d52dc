//! Log lines on standard error, for people or as JSON.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends the process's log lines to standard error. `filter` is a list such as `info,cyclotron_net=debug`.
/// Errors: a filter that cannot be parsed. A second call changes nothing.
pub fn init_log(format: LogFormat, filter: &str) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(filter)?;
    // What a full disk or a closed pipe does not take is lost: the node is not to end for that.
    let builder = tracing_subscriber::fmt()
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .with_target(true);
    // An error says that a subscriber is set already: then that one stays.
    let _already_set = match format {
        LogFormat::Text => builder.compact().try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    Ok(())
}
