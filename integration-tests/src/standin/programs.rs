//! The programs of the engines, and the library that they load in place of libpam.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::process::{Error, Launch};

/// Where an engine's programs are.
#[derive(Debug)]
pub(super) struct Programs(Vec<PathBuf>);

impl Programs {
    /// Looks for all of `needed` in the folder that the environment says in `variable`; if it
    /// says none, in each of `places`: the first that has them all, in any of its folders.
    pub(super) fn find(
        product: &str,
        package: &str,
        needed: &[&str],
        variable: &str,
        places: impl IntoIterator<Item = Vec<PathBuf>>,
    ) -> Result<Self, Error> {
        let said = env::var_os(variable).map(PathBuf::from);
        let among = |place: &[PathBuf]| {
            let found = needed.iter().map(|program| {
                let mut candidates = place.iter().map(|folder| folder.join(program));
                candidates.find(|candidate| candidate.is_file())
            });
            found.collect::<Option<Vec<PathBuf>>>().map(Self)
        };
        let found = match &said {
            Some(folder) => among(std::slice::from_ref(folder)),
            None => places.into_iter().find_map(|place| among(&place)),
        };
        found.ok_or_else(|| {
            let where_looked = said.map_or_else(
                || "looked where Debian has them, and in PATH".to_owned(),
                |folder| format!("{variable} is {}", folder.display()),
            );
            let hint = format!(
                "{} not found ({where_looked}); install them (Debian: apt-get install {package}) or set {variable}",
                needed.join(", "),
            );
            Error::Io {
                what: format!("find {product}'s server programs"),
                source: io::Error::new(io::ErrorKind::NotFound, hint),
            }
        })
    }

    /// The path of one that was looked for; any other is left to `PATH`.
    pub(super) fn path(&self, program: &str) -> PathBuf {
        let found = self.0.iter().find(|path| path.file_name().is_some_and(|name| name == program));
        found.cloned().unwrap_or_else(|| program.into())
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
