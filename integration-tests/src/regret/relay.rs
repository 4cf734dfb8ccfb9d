//! The agent's own path to a server, which can be refused while the proxy's works.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

use super::script::Path;

/// Passes connections on while it exists.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    path: watch::Sender<Path>,
    _task: AbortOnDropHandle<()>,
}

impl Relay {
    pub(super) fn to(server: SocketAddr) -> io::Result<Self> {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = listener.local_addr()?;
        let path = watch::Sender::new(Path::Open);
        let task = tokio::spawn(pass(listener, address, server, path.subscribe()));
        Ok(Self { address, path, _task: AbortOnDropHandle::new(task) })
    }

    /// Open connections end when the path changes.
    pub(super) fn set(&self, path: Path) {
        self.path.send_replace(path);
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    bind(address)?.listen(128)
}

async fn pass(mut listener: TcpListener, own: SocketAddr, to: SocketAddr, mut path: watch::Receiver<Path>) {
    let each = path.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                tokio::spawn(one(client, to, each.clone()));
            },
            open = refused(&mut path, true) => {
                if open.is_err() {
                    return;
                }
                drop(listener);
                // Bound and not listening: no other process gets the port.
                let held = again(|| bind(own)).await;
                if refused(&mut path, false).await.is_err() {
                    return;
                }
                drop(held);
                listener = again(|| listen(own)).await;
            }
        }
    }
}

/// Waits until connections are refused, or until they are not; fails when the relay is gone.
async fn refused(path: &mut watch::Receiver<Path>, so: bool) -> Result<(), watch::error::RecvError> {
    path.wait_for(|path| (*path == Path::Refused) == so).await.map(drop)
}

async fn one(mut client: TcpStream, to: SocketAddr, mut path: watch::Receiver<Path>) {
    let now = *path.borrow();
    let changed = async {
        let _ = path.wait_for(|path| *path != now).await;
    };
    let passed = async {
        if now == Path::Silent {
            return std::future::pending().await;
        }
        if let Ok(mut server) = TcpStream::connect(to).await {
            let _ = copy_bidirectional(&mut client, &mut server).await;
        }
    };
    tokio::select! {
        () = changed => {}
        () = passed => {}
    }
}

/// Until the kernel has let go of the address.
async fn again<T>(mut attempt: impl FnMut() -> io::Result<T>) -> T {
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}
