//! A connection to a profiled program.

use crate::CaptureError;
use crate::events::Events;
use crate::protocol::{
    HANDSHAKE_OTHER_VERSION, HANDSHAKE_WELCOME, ON_DEMAND_BYTES, PROTOCOL, Query, SHIBBOLETH, WELCOME_BYTES, Welcome,
};
use crate::totals::Totals;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a program may say nothing; it shows that it is there every five seconds.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// Reads what a program tells a profiler. Dropping it ends the connection, and the program goes on as if nobody had been there.
pub struct Capture {
    from: BufReader<TcpStream>,
    to: TcpStream,
    welcome: Welcome,
    events: Events,
}

impl Capture {
    /// Connects to a program, which keeps what happens from now on.
    pub fn connect(address: SocketAddr) -> Result<Self, CaptureError> {
        let mut to = TcpStream::connect(address)?;
        to.set_nodelay(true)?;
        to.set_read_timeout(Some(SILENCE_MAX))?;
        to.write_all(SHIBBOLETH)?;
        to.write_all(&PROTOCOL.to_le_bytes())?;
        let mut from = BufReader::with_capacity(1 << 16, to.try_clone()?);
        let mut status = [0];
        from.read_exact(&mut status)?;
        match status[0] {
            HANDSHAKE_WELCOME => {}
            HANDSHAKE_OTHER_VERSION => return Err(CaptureError::OtherVersion),
            status => return Err(CaptureError::Refused(status)),
        }
        let mut welcome = [0; WELCOME_BYTES];
        from.read_exact(&mut welcome)?;
        let welcome = Welcome::decode(&welcome)?;
        if welcome.on_demand {
            // Frames so far, and the time.
            from.read_exact(&mut [0; ON_DEMAND_BYTES])?;
        }
        Ok(Self { from, to, welcome, events: Events::default() })
    }

    /// What the program says of itself.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Reads the next events, and asks for the names in them. False when the program has said that these were the last, and has told the names
    /// of all; it was let go then, and there is nothing to read any more.
    pub fn read(&mut self) -> Result<bool, CaptureError> {
        self.events.read(&mut self.from)?;
        for question in self.events.questions() {
            self.to.write_all(&question)?;
        }
        let ended = self.events.are_complete();
        if ended {
            self.to.write_all(&Query::Terminate.encode(0))?;
        }
        Ok(!ended)
    }

    /// What has been read so far. Cost: O(places and plots).
    pub fn totals(&self) -> Totals {
        self.events.totals(self.welcome.ns_per_tick)
    }
}
