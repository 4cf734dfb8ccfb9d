//! RDS's API: moto as a server, and in front of it answers for the calls that moto lacks or that a test makes fail.

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::start::from_pypi;
use crate::process::{Error, Launch, Process};

/// Python imports much before the server answers, on a busy machine for half a minute.
const PATIENCE: Duration = Duration::from_secs(120);

/// The parameters of a call.
pub type Call = BTreeMap<String, String>;
type Answer = Arc<dyn Fn(&Call) -> (u16, String) + Send + Sync>;

/// The API of one test. Its state is gone with it.
pub struct RdsApi {
    address: SocketAddr,
    shared: Arc<Shared>,
    _front: AbortOnDropHandle<()>,
    _moto: Process,
    _folder: TempDir,
}

struct Shared {
    moto: String,
    client: reqwest::Client,
    answers: Mutex<BTreeMap<String, Answer>>,
    calls: Mutex<BTreeMap<String, usize>>,
}

// === impl RdsApi ===

impl RdsApi {
    pub async fn start() -> Result<Self, Error> {
        let missing = || Error::Io {
            what: "find moto from PyPI".to_owned(),
            source: std::io::Error::new(std::io::ErrorKind::NotFound, "`make deps` installs it"),
        };
        let server = from_pypi("moto/server.py").ok_or_else(missing)?;
        let python = server.ancestors().nth(5).map(|venv| venv.join("bin/python")).ok_or_else(missing)?;
        let folder = tempfile::tempdir().map_err(Error::io("make a folder"))?;
        let mut moto = Launch::new("moto", python, folder.path())
            .clean_environment()
            .env("PYTHONUNBUFFERED", "1")
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"])
            .spawn()?;
        let log = moto.log().to_owned();
        let address = moto
            .ready("moto to listen", PATIENCE, async || {
                let text = std::fs::read_to_string(&log).map_err(|error| error.to_string())?;
                let address = text.split("http://").nth(1).and_then(|rest| rest.split_whitespace().next());
                address.map(str::to_owned).ok_or(text)
            })
            .await?;
        let client = reqwest::Client::builder().no_proxy().build();
        let client = client.map_err(|error| Error::io("make a client")(std::io::Error::other(error)))?;
        let shared = Arc::new(Shared {
            moto: format!("http://{address}/"),
            client,
            answers: Mutex::default(),
            calls: Mutex::default(),
        });
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Error::io("listen for the API"))?;
        let address = listener.local_addr().map_err(Error::io("listen for the API"))?;
        let app = Router::new().fallback(front).with_state(shared.clone());
        let front = tokio::spawn(async move {
            // It ends with its task.
            let _ = axum::serve(listener, app).await;
        });
        let api =
            Self { address, shared, _front: AbortOnDropHandle::new(front), _moto: moto, _folder: folder };
        api.answer("DescribePendingMaintenanceActions", |_| {
            (200, result("DescribePendingMaintenanceActions", "<PendingMaintenanceActions/>"))
        });
        Ok(api)
    }

    /// Variables with which a process asks here, and not AWS.
    pub fn environment(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL_RDS", format!("http://{}", self.address)),
            ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "a-made-up-secret".to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// A call of moto, such as one that creates an instance.
    pub async fn call(&self, action: &str, parameters: &[(&str, &str)]) -> Result<String, String> {
        let pairs = parameters.iter().map(|(name, value)| format!("&{name}={}", encoded(value)));
        let body = format!("Action={action}&Version=2014-10-31{}", pairs.collect::<String>());
        let (status, text) = self.shared.forward(&authorization(), body.into()).await?;
        if status == 200 { Ok(text) } else { Err(format!("{action}: {status} {text}")) }
    }

    /// Answers calls of an action from now on, instead of moto.
    pub fn answer(&self, action: &str, answer: impl Fn(&Call) -> (u16, String) + Send + Sync + 'static) {
        lock(&self.shared.answers).insert(action.to_owned(), Arc::new(answer));
    }

    /// AWS's refusal of an action by a policy.
    pub fn deny(&self, action: &str) {
        let message =
            format!("User: arn:aws:iam::123456789012:user/agent is not authorized to perform: rds:{action}");
        self.answer(action, move |_| (403, error("AccessDenied", &message)));
    }

    /// Lets moto answer again.
    pub fn let_answer(&self, action: &str) {
        lock(&self.shared.answers).remove(action);
    }

    /// The calls of an action since the start.
    pub fn calls(&self, action: &str) -> usize {
        lock(&self.shared.calls).get(action).copied().unwrap_or_default()
    }
}

impl fmt::Debug for RdsApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RdsApi").field("address", &self.address).finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    async fn forward(&self, authorization: &str, body: Bytes) -> Result<(u16, String), String> {
        let sent = self
            .client
            .post(&self.moto)
            .header(header::AUTHORIZATION.as_str(), authorization)
            .header(header::CONTENT_TYPE.as_str(), "application/x-www-form-urlencoded")
            .body(body)
            .send()
            .await
            .map_err(|error| error.to_string())?;
        let status = sent.status().as_u16();
        Ok((status, sent.text().await.map_err(|error| error.to_string())?))
    }
}

async fn front(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let call: Call = String::from_utf8_lossy(&body)
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| {
            let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned();
            (name.to_owned(), value)
        })
        .collect();
    let action = call.get("Action").cloned().unwrap_or_default();
    *lock(&shared.calls).entry(action.clone()).or_default() += 1;
    let answer = lock(&shared.answers).get(&action).cloned();
    let signed = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let answer = match (answer, signed) {
        (_, None) => Ok((403, error("MissingAuthenticationToken", "the request is not signed"))),
        (Some(answer), _) => Ok(answer(&call)),
        (None, Some(signed)) => shared.forward(signed, body).await,
    };
    let (status, text) = answer.unwrap_or_else(|error| (502, error));
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "text/xml")], text).into_response()
}

/// AWS's answer to an action.
pub fn result(action: &str, inner: &str) -> String {
    format!(
        "<{action}Response xmlns=\"http://rds.amazonaws.com/doc/2014-10-31/\"><{action}Result>{inner}</{action}Result>\
         <ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></{action}Response>"
    )
}

/// AWS's refusal.
pub fn error(code: &str, message: &str) -> String {
    format!(
        "<ErrorResponse xmlns=\"http://rds.amazonaws.com/doc/2014-10-31/\"><Error><Type>Sender</Type><Code>{code}</Code>\
         <Message>{message}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
    )
}

/// moto reads the region and the service in it, and verifies nothing.
fn authorization() -> String {
    "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260101/eu-west-1/rds/aws4_request, SignedHeaders=host, Signature=0".to_owned()
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
