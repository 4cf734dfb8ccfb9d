//! TCP or a Unix socket, TLS, and the login.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use agent_database::mysql::wire::{
    Cursor, Packets, Wire,
    greeting::capability,
    put_counted,
    request::{FIRST_PLUGIN, NEEDED, fixed_part, put_text},
};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use sha1::{Digest, Sha1};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::{Error, Session, Stream, receive};

/// Where the server listens.
#[derive(Clone, Debug)]
pub enum Dial {
    /// A server, or a proxy before it.
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// TLS that verifies the server's certificate and name.
#[derive(Clone, Debug)]
pub struct Tls {
    pub config: Arc<ClientConfig>,
    /// Verified against the certificate.
    pub name: String,
}

/// A credential, redacted in `Debug`.
#[derive(Clone)]
pub enum Secret {
    /// Sent in clear text when the server asks for it, over TLS only.
    Token(String),
    /// For `mysql_native_password`, which does not send it.
    Password(String),
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Secret::Token(_) => "Token(..)",
            Secret::Password(_) => "Password(..)",
        })
    }
}

/// The parameters of a login.
#[derive(Clone, Debug)]
pub struct Login {
    pub dial: Dial,
    /// The local address, such as 127.0.0.2.
    pub from: Option<IpAddr>,
    /// `None`: no TLS, and no token is ever sent.
    pub tls: Option<Tls>,
    pub user: String,
    pub secret: Secret,
    pub database: Option<String>,
}

const CLEAR: &[u8] = b"mysql_clear_password";

impl Login {
    pub async fn connect(&self) -> Result<Session, Error> {
        self.log_in(self.dialled().await?, None).await
    }

    /// Logs in on an open connection, with the connection attribute `program_name`.
    pub async fn connect_on(&self, stream: TcpStream, program: &str) -> Result<Session, Error> {
        self.log_in(Box::new(stream), Some(program)).await
    }

    async fn log_in(&self, mut stream: Box<dyn Stream>, program: Option<&str>) -> Result<Session, Error> {
        let mut packets = Packets::new(&mut stream);
        let greeting = Greeting::parse(&receive(&mut packets).await?)?;

        let mut capabilities =
            NEEDED & !capability::SSL | capability::LONG_PASSWORD | capability::TRANSACTIONS;
        if self.database.is_some() {
            capabilities |= capability::CONNECT_WITH_DB;
        }
        if program.is_some() {
            capabilities |= capability::CONNECT_ATTRS;
        }
        if self.tls.is_some() {
            if greeting.capabilities & capability::SSL == 0 {
                return Err(Error::Protocol("the server offers no TLS"));
            }
            capabilities |= capability::SSL;
            packets.write(&fixed_part(capabilities)).await?;
        }
        let number = packets.number();
        if let Some(tls) = &self.tls {
            stream = tls.over(stream).await?;
        }
        let mut packets = Packets::counting_from(stream, number);

        let mut request = fixed_part(capabilities);
        put_text(&mut request, self.user.as_bytes());
        let response = match &self.secret {
            Secret::Token(_) => Vec::new(),
            Secret::Password(password) => native_response(password, &greeting.salt),
        };
        put_counted(&mut request, &response);
        if let Some(database) = &self.database {
            put_text(&mut request, database.as_bytes());
        }
        put_text(&mut request, FIRST_PLUGIN);
        if let Some(program) = program {
            let mut attribute = Vec::new();
            put_counted(&mut attribute, b"program_name");
            put_counted(&mut attribute, program.as_bytes());
            put_counted(&mut request, &attribute);
        }
        packets.write(&request).await?;

        loop {
            let answer = receive(&mut packets).await?;
            match answer.split_first() {
                Some((0x00, _)) => {
                    return Ok(Session::new(Wire::new(packets), greeting.id, greeting.version));
                }
                Some((0xfe, switch)) => {
                    let mut switch = Cursor::new(switch);
                    let response = self.response_to(switch.until_zero()?, switch.rest())?;
                    packets.write(&response).await?;
                }
                _ => return Err(Error::Protocol("an unknown answer to the login")),
            }
        }
    }

    async fn dialled(&self) -> Result<Box<dyn Stream>, Error> {
        let address = match &self.dial {
            Dial::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
            Dial::Tcp(address) => *address,
        };
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(from) = self.from {
            socket.bind(SocketAddr::new(from, 0))?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    fn response_to(&self, plugin: &[u8], data: &[u8]) -> Result<Vec<u8>, Error> {
        match (plugin, &self.secret) {
            (CLEAR, Secret::Token(token)) if self.tls.is_some() => Ok([token.as_bytes(), &[0]].concat()),
            (CLEAR, _) => Err(Error::Protocol("the server asks for the password in clear text")),
            // The response of a user without a password: the server refuses it with its own message.
            (FIRST_PLUGIN, Secret::Token(_)) => Ok(Vec::new()),
            (FIRST_PLUGIN, Secret::Password(password)) => {
                Ok(native_response(password, data.strip_suffix(b"\0").unwrap_or(data)))
            }
            _ => Err(Error::Protocol("the server asks for an unknown plugin")),
        }
    }
}

impl Tls {
    async fn over(&self, stream: Box<dyn Stream>) -> Result<Box<dyn Stream>, Error> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let name = ServerName::try_from(self.name.clone()).map_err(invalid)?;
        Ok(Box::new(TlsConnector::from(self.config.clone()).connect(name, stream).await?))
    }
}

/// `SHA1(password) XOR SHA1(salt + SHA1(SHA1(password)))`
fn native_response(password: &str, salt: &[u8]) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    let once = Sha1::digest(password);
    let salted = Sha1::new().chain_update(salt).chain_update(Sha1::digest(once)).finalize();
    once.iter().zip(salted).map(|(once, salted)| once ^ salted).collect()
}

/// The server's greeting. The agent's own parser skips the salt, which only passwords need.
struct Greeting {
    version: String,
    id: u32,
    salt: Vec<u8>,
    capabilities: u32,
}

impl Greeting {
    fn parse(packet: &[u8]) -> Result<Self, Error> {
        let mut cursor = Cursor::new(packet);
        if cursor.u8()? != 10 {
            return Err(Error::Protocol("not a greeting of protocol 10"));
        }
        let version = String::from_utf8_lossy(cursor.until_zero()?).into_owned();
        let id = cursor.u32()?;
        let mut salt = cursor.take(8)?.to_vec();
        cursor.take(1)?;
        let low = cursor.u16()?;
        cursor.take(3)?;
        let high = cursor.u16()?;
        cursor.take(11)?;
        // Twelve bytes, without the final zero.
        salt.extend_from_slice(cursor.until_zero()?);
        Ok(Self { version, id, salt, capabilities: u32::from(high) << 16 | u32::from(low) })
    }
}
