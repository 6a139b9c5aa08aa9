//! Connections, opened by the program that ships.

use anyhow::{Result, ensure};
use aya::programs::{TestRun, TestRunOptions, Xdp};

use super::many;
use crate::{oracle::sample, packet::ACK, rig::Rig};

/// A frame, and what the kernel is told of where it came by.
pub struct Sender {
    frame: Vec<u8>,
    context: Vec<u8>,
    out: Vec<u8>,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Forwarded, by whichever interface.
    pub forwarded: bool,
    /// Nanoseconds in the program, the kernel's harness included.
    pub ns: u32,
}

impl Sender {
    /// Sends SYNs to a service.
    #[must_use]
    pub fn to(service: u32) -> Self {
        let frame = many::syn(service, many::client(0));
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, frame.len() as u32, 0, sample::FRONT, 0, 0].map(u32::to_ne_bytes).concat();
        Self { out: vec![0; frame.len()], frame, context }
    }

    /// From here on sends what comes after the SYN: ACKs.
    pub fn establish(&mut self) {
        many::set_flags(&mut self.frame, ACK);
    }

    /// Sends one client's, so many times.
    ///
    /// # Errors
    /// The kernel doesn't run it.
    pub fn send(&mut self, program: &Xdp, client: u32, repeat: u32) -> Result<Sent> {
        const TX: u32 = 3;
        const REDIRECT: u32 = 4;
        many::set_client(&mut self.frame, many::client(client));
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            data_out: Some(&mut self.out),
            ctx_in: Some(&self.context),
            repeat,
            ..TestRunOptions::new()
        };
        let result = program.test_run(options)?;
        Ok(Sent { forwarded: matches!(result.return_value, TX | REDIRECT), ns: u32::try_from(result.duration.as_nanos())? })
    }

    /// The frame that became of the last one.
    #[must_use]
    pub fn last(&self) -> &[u8] {
        &self.out
    }
}

/// Opens connections of clients number `from` to `to` (not included) with a service; how many were forwarded.
///
/// # Errors
/// The kernel doesn't run the program.
pub fn open(rig: &mut Rig, service: u32, from: u32, to: u32) -> Result<u32> {
    let mut sender = Sender::to(service);
    let program = rig.dataplane().program(true)?;
    let mut forwarded = 0;
    for client in from..to {
        forwarded += u32::from(sender.send(program, client, 1)?.forwarded);
    }
    ensure!(forwarded > 0 || from == to, "no connection was forwarded");
    Ok(forwarded)
}
