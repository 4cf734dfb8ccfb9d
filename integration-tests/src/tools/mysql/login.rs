//! Dialling, TLS, and the login itself.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use sha1::{Digest, Sha1};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::{
    Error, Session,
    packets::{Fields, Packets, Wire},
};

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
    /// The name that the certificate has to have.
    pub name: String,
}

/// What the user proves itself with. Not shown by `Debug`.
#[derive(Clone)]
pub enum Secret {
    /// Sent as it is when the server asks for it, over TLS only.
    Token(String),
    /// Proved by `mysql_native_password`, and never sent.
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

/// A login that can be tried any number of times.
#[derive(Clone, Debug)]
pub struct Login {
    pub dial: Dial,
    /// The address to come from, such as 127.0.0.2; the system's choice if not said.
    pub from: Option<IpAddr>,
    /// `None`: no TLS, and no token is ever sent.
    pub tls: Option<Tls>,
    pub user: String,
    /// Its token or password.
    pub secret: Secret,
    /// The database to start in, if any.
    pub database: Option<String>,
}

/// PROTOCOL_41, TRANSACTIONS, SECURE_CONNECTION, MULTI_STATEMENTS, MULTI_RESULTS,
/// PLUGIN_AUTH, and the long passwords of old: what this client speaks.
const SPOKEN: u32 = 1 | 0x200 | 0x2000 | 0x8000 | 0x1_0000 | 0x2_0000 | 0x8_0000;
const CONNECT_WITH_DB: u32 = 8;
const SSL: u32 = 0x800;
const CONNECT_ATTRS: u32 = 0x10_0000;
/// utf8mb4_general_ci
const COLLATION: u8 = 45;
const LARGEST_PACKET: u32 = 1 << 24;

const NATIVE: &[u8] = b"mysql_native_password";
const CLEAR: &[u8] = b"mysql_clear_password";

impl Login {
    pub async fn connect(&self) -> Result<Session, Error> {
        self.log_in(self.dialled().await?, None).await
    }

    /// The same on what was dialled already, so that the caller can look at the socket, and
    /// with a name of the client's program: the connection attribute `program_name`.
    pub async fn connect_on(&self, stream: TcpStream, program: &str) -> Result<Session, Error> {
        self.log_in(Box::new(stream), Some(program)).await
    }

    async fn log_in(&self, dialled: Box<dyn Wire>, program: Option<&str>) -> Result<Session, Error> {
        let mut packets = Packets::new(dialled);
        let greeting = Greeting::parse(&packets.receive().await?)?;

        let mut capabilities = SPOKEN;
        if self.database.is_some() {
            capabilities |= CONNECT_WITH_DB;
        }
        if program.is_some() {
            capabilities |= CONNECT_ATTRS;
        }
        if let Some(tls) = &self.tls {
            if greeting.capabilities & SSL == 0 {
                return Err(Error::Protocol("the server offers no TLS"));
            }
            capabilities |= SSL;
            packets.send(&start_of_response(capabilities)).await?;
            packets = tls.over(packets).await?;
        }

        let mut response = start_of_response(capabilities);
        response.extend_from_slice(self.user.as_bytes());
        response.push(0);
        let (proof, plugin) = match &self.secret {
            // Named after the plugin that asks for tokens, nothing would be taken for the token.
            Secret::Token(_) => (Vec::new(), NATIVE),
            Secret::Password(password) => (proof_of(password, &greeting.salt), NATIVE),
        };
        // A proof has twenty bytes, or none.
        response.push(u8::try_from(proof.len()).unwrap_or_default());
        response.extend_from_slice(&proof);
        if let Some(database) = &self.database {
            response.extend_from_slice(database.as_bytes());
            response.push(0);
        }
        response.extend_from_slice(plugin);
        response.push(0);
        if let Some(program) = program {
            let attribute = [counted("program_name")?, counted(program)?].concat();
            response.push(u8::try_from(attribute.len()).map_err(|_| TOO_LONG)?);
            response.extend_from_slice(&attribute);
        }
        packets.send(&response).await?;

        loop {
            let answer = packets.receive().await?;
            match answer.split_first() {
                Some((0x00, _)) => return Ok(Session::new(packets, greeting.id, greeting.version)),
                Some((0xfe, asked)) => {
                    let mut asked = Fields(asked);
                    let plugin = asked.text();
                    let proof = self.answer_to(plugin, asked.0)?;
                    packets.send(&proof).await?;
                }
                _ => return Err(Error::Protocol("neither in nor out after the login")),
            }
        }
    }

    async fn dialled(&self) -> Result<Box<dyn Wire>, Error> {
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

    fn answer_to(&self, plugin: &[u8], data: &[u8]) -> Result<Vec<u8>, Error> {
        match (plugin, &self.secret) {
            (CLEAR, Secret::Token(token)) if self.tls.is_some() => {
                let mut answer = token.clone().into_bytes();
                answer.push(0);
                Ok(answer)
            }
            (CLEAR, _) => Err(Error::Protocol("the server asks for the secret itself")),
            // As for a user without a password: the server refuses in its own words.
            (NATIVE, Secret::Token(_)) => Ok(Vec::new()),
            (NATIVE, Secret::Password(password)) => {
                Ok(proof_of(password, data.strip_suffix(b"\0").unwrap_or(data)))
            }
            _ => Err(Error::Protocol("the server asks for a plugin that is not spoken here")),
        }
    }
}

impl Tls {
    async fn over(&self, mut packets: Packets) -> Result<Packets, Error> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let name = ServerName::try_from(self.name.clone()).map_err(invalid)?;
        let plain = std::mem::replace(&mut packets.wire, Box::new(tokio::io::empty()));
        let stream = TlsConnector::from(self.config.clone()).connect(name, plain).await?;
        Ok(packets.over(Box::new(stream)))
    }
}

/// How a request for TLS and the response to the greeting both begin.
fn start_of_response(capabilities: u32) -> Vec<u8> {
    let mut start = Vec::with_capacity(64);
    start.extend_from_slice(&capabilities.to_le_bytes());
    start.extend_from_slice(&LARGEST_PACKET.to_le_bytes());
    start.push(COLLATION);
    start.extend_from_slice(&[0; 23]);
    start
}

const TOO_LONG: Error = Error::Protocol("a name of a program that is too long");

/// A short text with its length before it.
fn counted(text: &str) -> Result<Vec<u8>, Error> {
    // A length beyond 250 is written in another way, which no name of a program needs.
    let length = u8::try_from(text.len()).ok().filter(|length| *length <= 200).ok_or(TOO_LONG)?;
    Ok([&[length], text.as_bytes()].concat())
}

/// `SHA1(password) XOR SHA1(salt + SHA1(SHA1(password)))`
fn proof_of(password: &str, salt: &[u8]) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    let once = Sha1::digest(password);
    let salted = Sha1::new().chain_update(salt).chain_update(Sha1::digest(once)).finalize();
    once.iter().zip(salted).map(|(once, salted)| once ^ salted).collect()
}

/// What the server says first.
struct Greeting {
    version: String,
    id: u32,
    salt: Vec<u8>,
    capabilities: u32,
}

impl Greeting {
    fn parse(payload: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields(payload);
        if fields.number(1)? != 10 {
            return Err(Error::Protocol("not version 10 of the protocol"));
        }
        let version = String::from_utf8_lossy(fields.text()).into_owned();
        let id = u32::try_from(fields.number(4)?).unwrap_or_default();
        let mut salt = fields.take(8)?.to_vec();
        fields.take(1)?;
        let low = fields.number(2)?;
        fields.take(3)?;
        let high = fields.number(2)?;
        fields.take(11)?;
        // Twelve bytes; the closing NUL is none of them.
        salt.extend_from_slice(fields.text());
        let capabilities = u32::try_from(high << 16 | low).unwrap_or_default();
        Ok(Self { version, id, salt, capabilities })
    }
}
