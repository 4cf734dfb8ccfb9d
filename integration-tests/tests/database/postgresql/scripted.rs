//! A server that follows a script, for what a real PostgreSQL does not do on demand.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use agent_core::{Fault, InstanceId};
use agent_database::{Address, Limits, LoginReport, Target, TlsTrust, postgresql};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

pub const NAME: &str = "scripted.c1a2b3d4e5f6.eu-west-1.rds.amazonaws.com";
pub const TOKEN: &str = "scripted.example:5432/?Action=connect&X-Amz-Signature=a-made-up-token";

/// What the server does with the one connection it takes.
#[derive(Clone, Copy)]
pub enum Script {
    /// Answers the request for TLS with this, and then closes.
    AnswerTlsWith(&'static [u8]),
    /// Closes without a word.
    Close,
    /// Agrees to TLS and then says something else.
    NoHandshake,
    /// TLS and the start of the login, then these messages, then closes.
    Say(&'static [u8]),
    /// TLS and the start of the login, then silence until the client is gone.
    Silence,
}

/// How its certificate is made.
#[derive(Clone, Copy, Default)]
pub struct Certificate {
    /// The certificate has expired.
    pub expired: bool,
}

/// Runs one login against a script: its fault, its report, and all that the server
/// read after TLS was up.
pub async fn login(script: Script, certificate: Certificate) -> (Fault, LoginReport, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let (ca_pem, config) = server_config(certificate);
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, ca_pem).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream, script, TlsAcceptor::from(Arc::new(config))).await
    });

    let limits = Limits { login: Duration::from_millis(500), ..Limits::default() };
    let trust = TlsTrust::from_file(&ca_file).unwrap();
    let (outcome, report) = postgresql::login(&target(address), &trust, TOKEN, &limits).await;
    let fault = outcome.err().expect("the login succeeded");
    assert!(!fault.to_string().contains(TOKEN), "the token is in {fault}");
    (fault, report, server.await.unwrap())
}

pub fn target(address: SocketAddr) -> Target {
    let endpoint = Address::new(NAME, address.port());
    Target::new(InstanceId::new("orders", "scripted"), endpoint, "lb_agent", "orders")
        .dialled_at(Address::new(&address.ip().to_string(), address.port()))
}

fn server_config(certificate: Certificate) -> (String, ServerConfig) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
    if certificate.expired {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    }
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &authority).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    (authority.pem(), config)
}

async fn serve(mut stream: TcpStream, script: Script, acceptor: TlsAcceptor) -> Vec<u8> {
    let mut request = [0; 8];
    stream.read_exact(&mut request).await.unwrap();
    match script {
        Script::AnswerTlsWith(answer) => stream.write_all(answer).await.unwrap(),
        Script::Close => {}
        Script::NoHandshake => {
            stream.write_all(b"S").await.unwrap();
            let mut hello = [0; 64];
            let _ = stream.read(&mut hello).await;
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        }
        Script::Say(messages) => {
            stream.write_all(b"S").await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { return Vec::new() };
            let mut read = startup_message(&mut stream).await;
            stream.write_all(messages).await.unwrap();
            stream.shutdown().await.unwrap();
            let _ = stream.read_to_end(&mut read).await;
            return read;
        }
        Script::Silence => {
            stream.write_all(b"S").await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { return Vec::new() };
            let mut read = startup_message(&mut stream).await;
            let _ = stream.read_to_end(&mut read).await;
            return read;
        }
    }
    Vec::new()
}

async fn startup_message(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    let length = stream.read_u32().await.unwrap() as usize;
    let mut message = vec![0; length - 4];
    stream.read_exact(&mut message).await.unwrap();
    message
}
