//! Files with fresh IAM tokens, for clients that read their password from a file: one task for each file.
//!
//! A file is replaced as soon as there is a newer token, which is signed when two thirds of the life of the
//! last one are over. It is complete at any moment, and never readable by others. Files stay when the agent
//! stops: their tokens are good for some minutes more.
//!
//! - [`format`]: tokens → the text of a file.

mod format;

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, fchown},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use agent_aws::{CredentialChain, Region, Target, Token, source::TokenSource};
use agent_database::Address;
use tokio::time::sleep;

use self::format::text;
use crate::{
    config::TokenFile,
    events::{Episodes, Event, TokenFileFailed, TokenFileWritten},
    shared::Shared,
};

/// How often it is compared with the newest token, which is in memory, and its presence is checked.
const INTERVAL: Duration = Duration::from_secs(1);

/// Keeps one file current.
pub async fn run(file: TokenFile, chain: CredentialChain, shared: Shared) {
    let mut sources: Vec<TokenSource> = Vec::new();
    let mut written: Vec<Arc<Token>> = Vec::new();
    let mut episodes = Episodes::default();
    let path = file.path.display().to_string();
    loop {
        let outcome = async {
            if sources.is_empty() {
                sources = start(&file, &chain).await?;
            }
            update(&file, &sources, &written).await
        };
        match outcome.await {
            Ok(None) => {}
            Ok(Some(tokens)) => {
                let expires = tokens.iter().map(|token| token.expires_at()).min();
                let expires = expires.unwrap_or(SystemTime::UNIX_EPOCH);
                TokenFileWritten { path: &path, expires, again: episodes.ends(&path) }.emit(&shared.metrics);
                written = tokens;
            }
            Err(error) => {
                if episodes.begins(&path, &error) {
                    TokenFileFailed { path: &path, error: &error }.emit(&shared.metrics);
                }
            }
        }
        sleep(INTERVAL).await;
    }
}

async fn start(file: &TokenFile, chain: &CredentialChain) -> Result<Vec<TokenSource>, String> {
    let mut sources = Vec::new();
    for endpoint in &file.endpoints {
        sources.push(source(endpoint, &file.user, file.region.as_deref(), chain).await?);
    }
    Ok(sources)
}

/// A source of tokens for a user of clients. Without `region`, the one in the name of the endpoint or of the
/// environment.
pub async fn source(
    endpoint: &Address,
    user: &str,
    region: Option<&str>,
    chain: &CredentialChain,
) -> Result<TokenSource, String> {
    let region = match region {
        Some(region) => Region::parse(region).map_err(|error| error.to_string())?,
        None => match Region::from_endpoint(&endpoint.host) {
            Some(region) => region,
            None => chain.region().await.ok_or("no AWS region is known: set `region`, or AWS_REGION")?,
        },
    };
    let target = Target::new(&endpoint.host, endpoint.port, user, region);
    Ok(TokenSource::start(chain.clone(), target.map_err(|error| error.to_string())?))
}

/// The newest token of a source. No login of the agent will prove a new token of another user.
pub async fn newest(source: &TokenSource) -> Result<Arc<Token>, String> {
    match source.candidate() {
        Some(token) => Ok(token),
        None => source.token().await.map_err(|error| error.to_string()),
    }
}

/// Replaces the file if there are newer tokens or it is gone: the tokens that it has then.
async fn update(
    file: &TokenFile,
    sources: &[TokenSource],
    written: &[Arc<Token>],
) -> Result<Option<Vec<Arc<Token>>>, String> {
    let mut tokens = Vec::new();
    for source in sources {
        tokens.push(newest(source).await?);
    }
    let same = tokens.len() == written.len()
        && tokens.iter().zip(written).all(|(one, other)| Arc::ptr_eq(one, other));
    let (file, text) = (file.clone(), text(file.format, &file.endpoints, &file.user, &tokens));
    // A slow disk must not keep other tasks waiting.
    let replaced = tokio::task::spawn_blocking(move || {
        if same && file.path.exists() {
            return Ok(false);
        }
        replace(&file.path, file.owner.as_deref(), text.as_bytes()).map(|()| true)
    });
    match replaced.await {
        Ok(Ok(true)) => Ok(Some(tokens)),
        Ok(Ok(false)) => Ok(None),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Counts writes, each to a temporary file of its own: a slow one of the configuration before must not meet the
/// next one in the same file.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// Replaces a file at once, readable by its owner only.
fn replace(path: &Path, owner: Option<&str>, text: &[u8]) -> io::Result<()> {
    let owner = owner.map(uid).transpose()?;
    let temporary = temporary(path, WRITES.fetch_add(1, Ordering::Relaxed));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = (|| {
        // `create_new` follows no link that another user has put there.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text)?;
        file.sync_all()?;
        if owner.is_some() {
            // By the open file: a link in place of its name would be followed.
            fchown(&file, owner, None)?;
        }
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn temporary(path: &Path, write: u64) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.{write}.new", std::process::id()))
}

/// The id of a user by number, or by name in /etc/passwd.
pub fn uid(owner: &str) -> io::Result<u32> {
    if let Ok(id) = owner.parse() {
        return Ok(id);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let id = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let own = fields.next() == Some(owner);
        own.then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    id.ok_or_else(|| io::Error::other(format!("/etc/passwd has no user `{owner}`")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_mode_0600() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let before = fs::metadata(&path).unwrap().ino();
        replace(&path, None, b"new").unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), after.mode() & 0o777), ("new", 0o600));
        assert_ne!(after.ino(), before, "a reader of the old file keeps the old text");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_in_place_of_the_temporary_file_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("token"), folder.path().join("other"));
        fs::write(&other, "untouched").unwrap();
        symlink(&other, temporary(&path, 0)).unwrap();
        replace(&path, None, b"new").unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "untouched");
    }

    #[test]
    fn errors_name_the_file_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing/token");
        assert!(replace(&missing, None, b"x").unwrap_err().to_string().contains("missing/token"));
        assert!(replace(&folder.path().join("t"), Some("no-such-user"), b"x").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(uid("0").unwrap(), 0);
        assert_eq!(uid("root").unwrap(), 0);
    }
}
