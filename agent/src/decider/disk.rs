//! Writing to a disk that may hang: one write at a time, none waited for for ever.
//!
//! A write that was given up may still land. The next one must not overtake it, nor may
//! one after the other take a thread that name lookups need as well.

use std::{fmt::Display, sync::Arc, time::Duration};

use tokio::sync::Semaphore;

/// How long a state file may take to be written.
const PATIENCE: Duration = Duration::from_secs(3);

/// The disk of the state directory. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Disk {
    permit: Arc<Semaphore>,
    patience: Duration,
}

impl Default for Disk {
    fn default() -> Self {
        Self { permit: Arc::new(Semaphore::new(1)), patience: PATIENCE }
    }
}

impl Disk {
    /// Work on files, off the caller's thread. Refused at once while an earlier one hangs.
    ///
    /// # Errors
    /// The work's own, or that the disk does not answer.
    pub async fn write<E: Display + Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<(), E> + Send + 'static,
    ) -> Result<(), String> {
        let Ok(permit) = self.permit.clone().try_acquire_owned() else {
            return Err("the disk has not finished an earlier write".into());
        };
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work().map_err(|error| error.to_string())
        });
        match tokio::time::timeout(self.patience, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the disk did not answer within {:?}", self.patience)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;

    #[tokio::test]
    async fn a_disk_that_hangs_gets_no_second_write_until_the_first_has_landed() {
        let disk = Disk { patience: Duration::from_millis(20), ..Disk::default() };
        let landed = Arc::new(Mutex::new(Vec::new()));
        let (thaw, frozen) = mpsc::channel::<()>();
        let write = |what: &'static str, frozen: Option<mpsc::Receiver<()>>| {
            let landed = landed.clone();
            disk.write(move || {
                frozen.map_or(Ok(()), |frozen| frozen.recv())?;
                landed.lock().unwrap().push(what);
                Ok::<(), mpsc::RecvError>(())
            })
        };
        assert!(write("first", Some(frozen)).await.unwrap_err().contains("did not answer"));
        assert!(write("second", None).await.unwrap_err().contains("earlier write"));
        thaw.send(()).unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while let Err(error) = write("third", None).await {
            assert!(tokio::time::Instant::now() < deadline, "{error}");
            tokio::task::yield_now().await;
        }
        assert_eq!(*landed.lock().unwrap(), ["first", "third"]);
    }
}
