//! Trouble that no agent is needed for: servers, links, addresses, routes.

use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::Driver;
use crate::{
    node::Family,
    soak::{
        rules::Harm,
        schedule::{Event, Kind as Happens},
    },
};

impl Driver<'_> {
    /// Brings it about, and ends it.
    pub(super) fn trouble(&mut self, event: &Event, kind: Happens, lasts: Duration) -> Result<()> {
        let (number, victim) = (event.number, self.victim(event));
        let name = self.victims_name(event);
        match kind {
            Happens::ServerKilled => {
                self.journal.excuse(number, &[Harm::Broken, Harm::Lost], Vec::new(), &[&name]);
                self.journal.excuse(number, &[Harm::Failed], Vec::new(), &[]);
                self.kill_server(victim);
                self.sleep(lasts)?;
                Ok(self.world.hosts[victim].start()?)
            }
            Happens::ServerFrozen => {
                self.world.hosts[victim].signal(Signal::SIGSTOP)?;
                let slept = self.sleep(lasts);
                self.world.hosts[victim].signal(Signal::SIGCONT)?;
                slept
            }
            Happens::BackendLinkDown => {
                self.journal.excuse(number, &[Harm::Lost], Vec::new(), &[&name]);
                let port = self.world.hosts[victim].port.clone();
                self.link_down(&port, lasts)
            }
            Happens::NodeLinkDown => {
                self.journal.excuse(number, &[Harm::Lost, Harm::Failed], Vec::new(), &[]);
                self.link_down("node", lasts)
            }
            Happens::MacChanged => {
                self.journal.excuse(number, &[Harm::Lost], Vec::new(), &[&name]);
                let [a, b, c, d] = [2, 3, 4, 5].map(|which| event.choose(which, 256));
                let host = &self.world.hosts[victim];
                host.namespace.ip(&[format!("link set dev eth0 address 02:{a:02x}:{b:02x}:{c:02x}:{d:02x}:{victim:02x}")])?;
                self.sleep(lasts)
            }
            Happens::NeighborsDeleted => {
                self.world.node.namespace().ip(&["neigh flush dev eth0"])?;
                self.sleep(lasts)
            }
            Happens::RouteChanged => {
                let address = self.world.hosts[victim].address;
                let routes = |verb: &str| {
                    let of = |family: Family, bits| format!("route {verb} {}/{bits} dev eth0", family.of(address));
                    self.world.node.namespace().ip(&[of(Family::V4, 32), of(Family::V6, 128)])
                };
                routes("add")?;
                let slept = self.sleep(lasts);
                routes("del")?;
                slept
            }
            Happens::Weights
            | Happens::BackendRemoved
            | Happens::BackendAdded
            | Happens::BackendDrained
            | Happens::AgentKilled
            | Happens::AgentStopped
            | Happens::AgentRestarted
            | Happens::AgentUpgraded
            | Happens::Reloaded
            | Happens::ReloadRefused
            | Happens::StateDamaged
            | Happens::DiskFull
            | Happens::ClockStepped
            | Happens::FlippedKeep
            | Happens::FlippedReset
            | Happens::BreakerTripped
            | Happens::RolloutAborted => unreachable!("{kind:?} needs an agent"),
        }
    }

    fn link_down(&self, port: &str, lasts: Duration) -> Result<()> {
        self.world.set_link(port, false)?;
        let slept = self.sleep(lasts);
        self.world.set_link(port, true)?;
        slept
    }
}
