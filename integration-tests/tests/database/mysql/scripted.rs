//! A server that follows a script, for what a real MariaDB does not do on demand. It
//! keeps every byte that reaches it, as it came over the wire and as it was inside TLS.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use agent_core::{Fault, InstanceId};
use agent_database::{
    Address, Limits, LoginReport, Target, TlsTrust,
    mysql::{self, MySqlSession},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

pub const NAME: &str = "scripted.c1a2b3d4e5f6.eu-west-1.rds.amazonaws.com";
pub const TOKEN: &str = "scripted.example:3306/?Action=connect&X-Amz-Signature=a-made-up-token";

/// What the server does with the one connection it takes.
pub struct Script {
    /// Sent at once, before the client has said anything.
    pub first: Vec<u8>,
    /// What follows the request for TLS.
    pub then: Then,
    pub certificate: Certificate,
}

/// What follows the request for TLS.
pub enum Then {
    /// These bytes in the clear, and then nothing.
    InTheClear(Vec<u8>),
    /// TLS, and one of these for each packet of the client's; then the end of the stream.
    Tls(Vec<Vec<u8>>),
    /// TLS, and no answer to the login.
    Silence,
}

/// How its certificate is made.
#[derive(Clone, Copy, Default)]
pub struct Certificate {
    /// The certificate has expired.
    pub expired: bool,
    /// Signed by an unknown authority.
    pub unknown_authority: bool,
    /// The certificate is for another server.
    pub other_name: bool,
}

impl Script {
    /// A greeting as it should be, and then this.
    pub fn greets_and(then: Then) -> Self {
        Self { first: packet(0, &greeting(CAPABILITIES)), then, certificate: Certificate::default() }
    }

    /// TLS, and these answers to the client's packets.
    pub fn answers<const N: usize>(answers: [Vec<u8>; N]) -> Self {
        Self::greets_and(Then::Tls(answers.into()))
    }
}

/// All that reached the server.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// As it came over the wire, from the first byte to the last.
    pub wire: Vec<u8>,
    /// What it was inside TLS.
    pub inside: Vec<u8>,
}

impl Seen {
    /// How many times the token is in what came inside TLS. In the clear it never is.
    pub fn tokens(&self, token: &str) -> usize {
        assert_eq!(count(&self.wire, token), 0, "the token went over the wire in the clear");
        count(&self.inside, token)
    }
}

/// How many times any end of a token is in these bytes.
fn count(bytes: &[u8], token: &str) -> usize {
    let piece = &token.as_bytes()[token.len() - 12..];
    bytes.windows(piece.len()).filter(|window| *window == piece).count()
}

/// One login against a script that ends it: its fault, its report, and all that the
/// server has seen.
pub async fn refusal(script: Script) -> (Fault, LoginReport, Seen) {
    let (outcome, report, seen) = login(script, TOKEN).await;
    (outcome.expect_err("the login succeeded"), report, seen)
}

/// One login against a script. A session that comes of it is closed.
pub async fn login(script: Script, token: &str) -> (Result<(), Fault>, LoginReport, Seen) {
    let (outcome, report, server) = begin(script, token).await;
    let outcome = match outcome {
        Ok(session) => {
            session.close().await;
            Ok(())
        }
        Err(fault) => Err(fault),
    };
    (outcome, report, server.await.unwrap())
}

/// The session of a login against a script, and all that the server will have seen.
pub async fn begin(
    script: Script,
    token: &str,
) -> (Result<MySqlSession, Fault>, LoginReport, JoinHandle<Seen>) {
    let folder = tempfile::tempdir().unwrap();
    let (ca_pem, config) = server_config(script.certificate);
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, ca_pem).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream, script, &TlsAcceptor::from(Arc::new(config))).await
    });

    let limit = Duration::from_millis(1_000);
    let limits = Limits { tls: limit, login: limit, ..Limits::default() };
    let trust = TlsTrust::from_file(&ca_file).unwrap();
    let (outcome, report) = mysql::login(&target(address), &trust, token, &limits).await;
    let said = outcome.as_ref().err();
    assert!(!format!("{said:?} {report:?}").contains(token), "the token is in {said:?} or {report:?}");
    (outcome, report, server)
}

fn target(address: SocketAddr) -> Target {
    let endpoint = Address::new(NAME, address.port());
    Target::new(InstanceId::new("orders", "scripted"), endpoint, "lb_agent", "orders")
        .dialled_at(Address::new(&address.ip().to_string(), address.port()))
}

fn server_config(certificate: Certificate) -> (String, ServerConfig) {
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let (trusted, unknown) = (authority("the trusted one"), authority("another one"));
    let name = if certificate.other_name { NAME.replace("scripted", "other") } else { NAME.to_owned() };
    let mut params = CertificateParams::new([name]).unwrap();
    if certificate.expired {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    }
    let key = KeyPair::generate().unwrap();
    let issuer = if certificate.unknown_authority { &unknown } else { &trusted };
    let leaf = params.signed_by(&key, issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    (trusted.pem(), config)
}

// === the server ===

/// Follows the script until the client is gone.
async fn serve(stream: TcpStream, script: Script, acceptor: &TlsAcceptor) -> Seen {
    let wire = Arc::new(Mutex::new(Vec::new()));
    let mut inside = Vec::new();
    let recorded = Recorded { stream, seen: Arc::clone(&wire) };
    // A client that hangs up in the middle is what most scripts are about.
    let _ = converse(recorded, script, acceptor, &mut inside).await;
    let wire = wire.lock().unwrap().clone();
    Seen { wire, inside }
}

async fn converse(
    mut stream: Recorded,
    script: Script,
    acceptor: &TlsAcceptor,
    inside: &mut Vec<u8>,
) -> io::Result<()> {
    stream.write_all(&script.first).await?;
    // The request for TLS: 32 bytes, and the four before each packet.
    let mut request = [0; 36];
    stream.read_exact(&mut request).await?;
    match script.then {
        Then::InTheClear(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await?;
            stream.read_to_end(&mut Vec::new()).await?;
        }
        Then::Silence => {
            acceptor.accept(stream).await?.read_to_end(inside).await?;
        }
        Then::Tls(answers) => {
            let mut stream = acceptor.accept(stream).await?;
            for answer in answers {
                read_packet(&mut stream, inside).await?;
                stream.write_all(&answer).await?;
                stream.flush().await?;
            }
            stream.shutdown().await?;
            stream.read_to_end(inside).await?;
        }
    }
    Ok(())
}

/// One packet, with the four bytes before it.
async fn read_packet(stream: &mut (impl AsyncRead + Unpin), seen: &mut Vec<u8>) -> io::Result<()> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).await?;
    let mut payload =
        vec![0; usize::from(header[0]) | usize::from(header[1]) << 8 | usize::from(header[2]) << 16];
    stream.read_exact(&mut payload).await?;
    seen.extend_from_slice(&header);
    seen.extend_from_slice(&payload);
    Ok(())
}

/// A stream that keeps all that is read from it.
struct Recorded {
    stream: TcpStream,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Recorded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        this.seen.lock().unwrap().extend_from_slice(&buf.filled()[before..]);
        polled
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

// === what servers say ===

/// What MySQL 8 can do, TLS among it.
pub const CAPABILITIES: u32 = 0xdfff_ffff;
/// The one that says TLS.
pub const TLS: u32 = 1 << 11;

/// One packet on the wire.
pub fn packet(number: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    [&length[..3], &[number], payload].concat()
}

/// The greeting of a MySQL 8.0.39 with these capabilities.
pub fn greeting(capabilities: u32) -> Vec<u8> {
    let [a, b, c, d] = capabilities.to_le_bytes();
    let mut payload = b"\x0a8.0.39\0\x07\0\0\0saltsalt\0".to_vec();
    payload.extend_from_slice(&[a, b, 255, 2, 0, c, d, 21]);
    payload.extend_from_slice(&[0; 10]);
    payload.extend_from_slice(b"saltsaltsalt\0caching_sha2_password\0");
    payload
}

/// The request to go on with another plugin.
pub fn switch(number: u8, plugin: &str, data: &[u8]) -> Vec<u8> {
    packet(number, &[&[0xfe], plugin.as_bytes(), &[0], data].concat())
}

/// Done; more results follow or not.
pub fn ok(number: u8, more: bool) -> Vec<u8> {
    packet(number, &[0, 0, 0, if more { 0x0a } else { 2 }, 0, 0, 0])
}

/// An error, with its SQLSTATE if it has one.
pub fn error(number: u8, code: u16, state: &str, message: &str) -> Vec<u8> {
    let [low, high] = code.to_le_bytes();
    let state = if state.is_empty() { String::new() } else { format!("#{state}") };
    packet(number, &[&[0xff, low, high], state.as_bytes(), message.as_bytes()].concat())
}

/// A result of rows, from a packet number on.
pub fn rows(number: u8, names: &[&str], rows: &[&[&str]]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let mut payloads = vec![vec![u8::try_from(names.len()).unwrap()]];
    for name in names {
        let mut column = ["def", "", "t", "t", name, name].map(text).concat();
        column.extend_from_slice(&[12, 255, 0, 0, 4, 0, 0, 0xfd, 0, 0, 0, 0, 0]);
        payloads.push(column);
    }
    payloads.push(vec![0xfe, 0, 0, 2, 0]);
    payloads.extend(rows.iter().map(|row| row.iter().flat_map(|cell| text(cell)).collect()));
    payloads.push(vec![0xfe, 0, 0, 2, 0]);
    payloads.iter().zip(number..).flat_map(|(payload, number)| packet(number, payload)).collect()
}

/// The same, and another result follows.
pub fn and_more(mut result: Vec<u8>) -> Vec<u8> {
    let status = result.len() - 2;
    result[status] |= 8;
    result
}
