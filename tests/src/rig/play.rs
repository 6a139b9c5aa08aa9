//! A rig with an oracle beside it: for tests that send a few frames of their own.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};

use super::Rig;
use crate::{
    oracle::{Action, Oracle, Performed, Protocol, Reason, World, sample},
    packet::{Mac, Packet, parse},
};

/// A rig whose every frame is judged by an oracle.
pub struct Play<'a> {
    rig: &'a mut Rig,
    oracle: Oracle,
}

/// Clients' Ethernet address.
pub const CLIENT_MAC: Mac = Mac::local(0xc1);
/// Backends' Ethernet address, when they answer.
pub const BACKEND_MAC: Mac = Mac::local(0xb1);

impl<'a> Play<'a> {
    /// The data plane itself.
    pub const fn dataplane(&mut self) -> &mut splitter_user::dataplane::kernel::KernelDataplane {
        self.rig.dataplane()
    }

    /// A play on a rig that was opened for this world.
    #[must_use]
    pub fn new(rig: &'a mut Rig, world: World) -> Self {
        Self { rig, oracle: Oracle::new(world) }
    }

    /// The rig.
    pub const fn rig(&mut self) -> &mut Rig {
        self.rig
    }

    /// The world.
    #[must_use]
    pub const fn world(&self) -> &World {
        self.oracle.world()
    }

    /// Changes the world for both.
    ///
    /// # Errors
    /// The data plane's.
    pub fn change(&mut self, change: impl FnOnce(&mut World)) -> Result<()> {
        change(self.oracle.world_mut());
        self.rig.apply(self.oracle.world())
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The kernel doesn't run it, or what came of it isn't what the page says.
    pub fn send(&mut self, frame: &[u8], ingress: u32) -> Result<Performed> {
        let ingress = self.rig.ingress(ingress);
        let performed = self.rig.run(frame, ingress)?;
        if let Err(difference) = self.oracle.judge(frame, ingress, &performed.observed()) {
            bail!("{difference}\n  in  {frame:02x?}\n  out {performed:02x?}");
        }
        Ok(performed)
    }

    /// Sends a frame that must be forwarded, without any counter of a reason moving.
    ///
    /// # Errors
    /// As [`Self::send`]; or it isn't.
    pub fn forward(&mut self, frame: &[u8], ingress: u32) -> Result<Performed> {
        let performed = self.send(frame, ingress)?;
        let forwarded = matches!(performed.action, Action::Tx | Action::Redirect) && performed.counted.is_empty();
        ensure!(forwarded, "{:?}, counted {:?}", performed.action, performed.counted);
        Ok(performed)
    }

    /// Sends a frame of which this must become, and nothing else be counted.
    ///
    /// # Errors
    /// As [`Self::send`]; or it doesn't.
    pub fn stop(&mut self, frame: &[u8], ingress: u32, action: Action, reason: Reason) -> Result<Performed> {
        let performed = self.send(frame, ingress)?;
        let as_said = performed.action == action && performed.counted == [reason];
        ensure!(as_said, "{:?}, counted {:?}, not {action:?}, {reason}", performed.action, performed.counted);
        Ok(performed)
    }

    /// A packet of a client to a service.
    #[must_use]
    pub fn packet(&self, service: usize, client: SocketAddr, flags: u8) -> Packet {
        let service = &self.world().services[service];
        let packet = match service.protocol {
            Protocol::Tcp => Packet::tcp(client, service.address, flags),
            Protocol::Udp => Packet::udp(client, service.address, &b"question"[..]),
        };
        packet.ethernet(sample::node(sample::FRONT), CLIENT_MAC)
    }

    /// The client of this number, of a service's family. Each port from 1,024 on is used before the next address.
    #[must_use]
    pub fn client(&self, service: usize, number: u32) -> SocketAddr {
        let (address, port) = (number / 60_000, u16::try_from(1_024 + number % 60_000).expect("below 61,024"));
        match self.world().services[service].address.is_ipv4() {
            true => SocketAddr::from((std::net::Ipv4Addr::from(0xc612_0000 + address), port)),
            false => SocketAddr::from((
                std::net::Ipv6Addr::from(0x2001_0db8_00cc_0000_0000_0000_0000_0000 + u128::from(address)),
                port,
            )),
        }
    }
}

/// Source and destination of a frame.
///
/// # Errors
/// It isn't one of TCP or UDP.
pub fn endpoints(frame: &[u8]) -> Result<(SocketAddr, SocketAddr)> {
    let view = parse::parse(frame).map_err(|flaw| anyhow::anyhow!("{flaw:?}"))?;
    view.endpoints().context("no ports")
}

/// What a backend answers to a forwarded frame.
///
/// # Errors
/// The frame isn't one of TCP or UDP.
pub fn answer(forwarded: &[u8], flags: u8) -> Result<Packet> {
    let (nat, backend) = endpoints(forwarded)?;
    let view = parse::parse(forwarded).map_err(|flaw| anyhow::anyhow!("{flaw:?}"))?;
    let packet = match view.transport {
        parse::Transport::Udp(_) => Packet::udp(backend, nat, &b"answer"[..]),
        parse::Transport::Tcp(_) | parse::Transport::Icmp { .. } | parse::Transport::None => Packet::tcp(backend, nat, flags),
    };
    Ok(packet.ethernet(view.source, BACKEND_MAC))
}

/// The Ethernet address that a frame goes to.
#[must_use]
pub fn destination(frame: &[u8]) -> Mac {
    Mac(frame[..6].try_into().expect("six octets"))
}
