//! A network path that loses every packet: what a host that is cut off looks like, which a frozen process
//! is not, since its kernel still accepts connections.
//!
//! Packets are dropped by nftables, in a network namespace of this process's own: see
//! [`in_own_network`]. Only root can make one.

use std::{
    env, io,
    net::Ipv4Addr,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use crate::process::Error;

/// Set in the process that runs in a network namespace of its own.
const MARK: &str = "RDSLB_OWN_NETWORK";

/// Starts this program anew in a network namespace that has only a loopback interface, unless it is in
/// one. Returns false where the system does not allow it: packets cannot be dropped then.
pub fn in_own_network() -> bool {
    if env::var_os(MARK).is_some() {
        return true;
    }
    let may = Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up && nft list tables"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !may.is_ok_and(|status| status.success()) {
        return false;
    }
    let Ok(program) = env::current_exe() else { return false };
    // On success it does not return.
    let _ = Command::new("unshare")
        .args(["--net", "sh", "-c", r#"ip link set lo up && exec "$0" "$@""#])
        .arg(program)
        .args(env::args_os().skip(1))
        .env(MARK, "1")
        .exec();
    false
}

/// Drops all packets from and to an address until it is dropped itself.
#[derive(Debug)]
pub struct Dropped {
    /// The nftables table with the rules, one for each address.
    table: String,
}

impl Dropped {
    /// Whether this process may drop packets.
    pub fn is_possible() -> bool {
        env::var_os(MARK).is_some()
    }

    /// # Errors
    /// The process is not in a network of its own, or nftables refuses the rule.
    pub fn of(address: Ipv4Addr) -> Result<Self, Error> {
        if !Self::is_possible() {
            return Err(Error::io("drop packets")(io::Error::other(
                "this process has no network of its own",
            )));
        }
        let table = format!("dropped_{}", address.to_string().replace('.', "_"));
        nft(&format!(
            "add table ip {table}; \
             add chain ip {table} input {{ type filter hook input priority 0; }}; \
             add rule ip {table} input ip daddr {address} drop; \
             add rule ip {table} input ip saddr {address} drop"
        ))?;
        Ok(Self { table })
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = nft(&format!("delete table ip {}", self.table));
    }
}

fn nft(rules: &str) -> Result<(), Error> {
    let output = Command::new("nft").arg(rules).output().map_err(Error::io("run nft"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::io("drop packets by nft")(io::Error::other(said)))
}
