//! The programs of PostgreSQL, and the library that they load in place of libpam.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::process::{Error, Launch};

/// Says where PostgreSQL's programs are, when they are not where Debian has them.
pub const FOLDER_VARIABLE: &str = "STANDIN_POSTGRES_BIN";

const NEEDED: [&str; 3] = ["initdb", "postgres", "pg_basebackup"];

/// Finds the folder with PostgreSQL's server programs: by [`FOLDER_VARIABLE`], else the
/// newest under `/usr/lib/postgresql` (where `PATH` does not lead), else in `PATH`.
pub(super) fn find() -> Result<PathBuf, Error> {
    let has_all = |folder: &PathBuf| NEEDED.iter().all(|program| folder.join(program).is_file());
    if let Some(folder) = env::var_os(FOLDER_VARIABLE).map(PathBuf::from) {
        let missing = || missing(&format!("{FOLDER_VARIABLE} is {}", folder.display()));
        return Some(folder.clone()).filter(has_all).ok_or_else(missing);
    }
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = installed
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_unstable_by_key(|(version, _)| std::cmp::Reverse(*version));
    let in_path = env::var_os("PATH").unwrap_or_default();
    let mut folders = versions.into_iter().map(|(_, folder)| folder).chain(env::split_paths(&in_path));
    folders.find(has_all).ok_or_else(|| missing("looked in /usr/lib/postgresql/*/bin and PATH"))
}

fn missing(where_looked: &str) -> Error {
    let hint = format!(
        "{} not found ({where_looked}); install them (Debian: apt-get install postgresql) or set {FOLDER_VARIABLE}",
        NEEDED.join(", "),
    );
    Error::Io {
        what: "find PostgreSQL's server programs".to_owned(),
        source: io::Error::new(io::ErrorKind::NotFound, hint),
    }
}

/// Compiles `pam/libpam.c` into `folder` as `libpam.so.0`; the source is part of this program.
pub(super) async fn build_pam(folder: &Path, logs: &Path) -> Result<(), Error> {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).map_err(Error::io(format!("write {}", path.display())))?;
        Ok::<_, Error>(path)
    };
    let source = write("libpam.c", include_str!("../../pam/libpam.c"))?;
    let versions = write("libpam.map", include_str!("../../pam/libpam.map"))?;
    Launch::new("cc", "cc", logs)
        .args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Wl,-soname,libpam.so.0"])
        .arg(format!("-Wl,--version-script={}", versions.display()))
        .arg("-o")
        .arg(folder.join("libpam.so.0"))
        .arg(source)
        .run(Duration::from_mins(1))
        .await?;
    Ok(())
}
