//! What every stand-in of an engine has alike, made once and copied: compiled libraries, and
//! the data of a server with its users and tables.
//!
//! Making them takes seconds of a processor for each server, a copy a moment. They are kept in
//! `target/standin`, under a name that changes with everything they are made from. What is a
//! stand-in's own (passwords, certificates, addresses, replication) is not in them.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    Error, Options, StopMode,
    certificate::Authority,
    programs,
    server::{Common, Server, copy_folder, make_folder},
};
use crate::process::{self, free_port_on};

/// The folder with `lib` and `data` for a stand-in with these programs; made if it is not kept.
pub(super) async fn provide(common: &Common, authority: &Authority, root: &Path) -> Result<PathBuf, Error> {
    let store = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/standin");
    let kept = store.join(name(common)?);
    if kept.is_dir() {
        return Ok(kept);
    }
    let fresh = make(common, authority, root.join("template")).await?;
    // A store that takes nothing only costs time: the next stand-in makes its own.
    let keep = || async {
        fs::create_dir_all(&store).ok()?;
        let unfinished = tempfile::Builder::new().prefix("unfinished-").tempdir_in(&store).ok()?;
        for part in ["lib", "data"] {
            copy_folder(&fresh.join(part), &unfinished.path().join(part), &common.logs).await.ok()?;
        }
        // Another stand-in may have been faster; then this copy goes.
        fs::rename(unfinished.path(), &kept).ok()?;
        let _ = unfinished.keep();
        Some(kept.clone())
    };
    Ok(keep().await.unwrap_or(fresh))
}

/// From the engine, its programs and their account, and all that it is set up with.
fn name(common: &Common) -> Result<String, Error> {
    let mut hasher = DefaultHasher::new();
    for program in common.programs.paths() {
        let what = format!("look at {}", program.display());
        let metadata = fs::metadata(program).map_err(process::Error::io(what))?;
        (program, metadata.len(), metadata.modified().ok()).hash(&mut hasher);
    }
    common.account.as_ref().map(|account| account.uid).hash(&mut hasher);
    (programs::SOURCES, common.driver.sources(), settings(common)).hash(&mut hasher);
    Ok(format!("{}-{:016x}", common.driver.name(), hasher.finish()))
}

fn settings(common: &Common) -> String {
    common.driver.settings(&Options::template()) + common.driver.template_settings()
}

/// Makes both in `folder`, with a server that is started for it.
async fn make(common: &Common, authority: &Authority, folder: PathBuf) -> Result<PathBuf, Error> {
    make_folder(&folder, 0o755, None)?;
    let libraries = folder.join("lib");
    make_folder(&libraries, 0o755, None)?;
    common.driver.build_libraries(&libraries, &common.logs).await?;

    let addresses = super::loopback_addresses(1);
    let port = free_port_on(&addresses)?;
    let address = addresses.into_iter().next().unwrap_or(Ipv4Addr::LOCALHOST.into());
    let connect = SocketAddr::new(address, port);
    let endpoint = "template.invalid".to_owned();
    let certificate = authority.certify(std::slice::from_ref(&endpoint), Timestamp::now())?;
    let settings = settings(common);
    let common = Arc::new(Common { libraries, settings, ..common.clone() });
    let own = folder.join("server");
    let server = Server::new(common.clone(), own, "template".to_owned(), endpoint, connect, &certificate)?;
    common.driver.install(&server).await?;
    server.start().await?;
    common.driver.set_up(&server).await?;
    server.stop(StopMode::Fast).await?;
    let what = "move the template's data";
    fs::rename(server.data(), folder.join("data")).map_err(process::Error::io(what))?;
    Ok(folder)
}
