//! A server in this process, and clients that speak to it over TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nixfleet_control_plane::config::{Config, Database};
use nixfleet_control_plane::server::{Ender, Means, Server};
use nixfleet_control_plane::store::Store;
use nixfleet_control_plane::store::fleet::HostListed;
use nixfleet_control_plane::store::tokens::{Made, Role};
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::wire::{EventBatch, EventsTaken, Hello, Orders, state_bytes};
use nixfleet_sys::fs;
use rcgen::{CertificateParams, KeyPair};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::fleet::{Documents, Fleet, Host, HostKeys, now};

/// A generous limit for anything that should be there at once.
pub(crate) const SOON: Duration = Duration::from_mins(1);

/// More than any test opens.
pub(crate) const CONNECTIONS_MAX: u32 = 10_000;

pub(crate) struct Running {
    pub(crate) dir: TempDir,
    pub(crate) config: Config,
    authority: CertificateDer<'static>,
    server: Option<(Ender, JoinHandle<()>)>,
    pub(crate) store: Store,
    pub(crate) address: SocketAddr,
    pub(crate) operator: String,
    pub(crate) viewer: String,
}

impl Running {
    /// A server for `fleet`, with an empty database and a folder that it watches.
    pub(crate) async fn start(fleet: &Fleet) -> Self {
        Self::start_over(fleet, None).await
    }

    /// A server for `fleet` over this database, or over a file of its own.
    pub(crate) async fn start_over(fleet: &Fleet, database: Option<Database>) -> Self {
        Self::start_by(fleet, database, now).await
    }

    /// The same, by this clock.
    pub(crate) async fn start_by(fleet: &Fleet, database: Option<Database>, clock: fn() -> UnixMs) -> Self {
        Self::start_as(fleet, database, Means { clock, ..Means::default() }, CONNECTIONS_MAX).await
    }

    /// The same by these means, for so many connections.
    pub(crate) async fn start_as(
        fleet: &Fleet,
        database: Option<Database>,
        means: Means,
        connections_max: u32,
    ) -> Self {
        let (dir, authority, config) = prepared(fleet, database);
        let config = Config { connections_max, ..config };
        let (address, store, server) = serve(&config, means).await;
        let operator = token(&store, "ann", Role::Operator).await;
        let viewer = token(&store, "vic", Role::Viewer).await;
        Self { dir, config, authority, server: Some(server), store, address, operator, viewer }
    }

    /// Servers for `fleet` that others start, over this database, which are reached at this address.
    pub(crate) async fn apart(fleet: &Fleet, database: Database, address: SocketAddr) -> Self {
        let (dir, authority, config) = prepared(fleet, Some(database));
        let store = Store::open(&config.database).await.expect("a database");
        let operator = token(&store, "ann", Role::Operator).await;
        let viewer = token(&store, "vic", Role::Viewer).await;
        Self { dir, config, authority, server: None, store, address, operator, viewer }
    }

    /// Puts another certificate in the place of the server's; clients that are made from now on trust that one only.
    pub(crate) fn renew_certificate(&mut self) {
        self.authority = certificate(self.dir.path()).1;
    }

    /// Ends it in order.
    pub(crate) async fn stop(&mut self) {
        let (ender, serving) = self.server.take().expect("it runs");
        ender.end();
        tokio::time::timeout(SOON, serving).await.expect("it ends").expect("it does not panic");
    }

    /// Starts it again at the same address, after [`Running::stop`].
    pub(crate) async fn again(&mut self) {
        self.config.listen = self.address;
        let (address, store, server) = serve(&self.config, Means::default()).await;
        (self.address, self.store, self.server) = (address, store, Some(server));
    }

    pub(crate) fn releases(&self) -> &Path {
        self.config.releases.as_deref().expect("it has one")
    }

    /// A client without a certificate.
    pub(crate) fn anybody(&self) -> Caller {
        self.caller(None)
    }

    /// A client with a host's key.
    pub(crate) fn host(&self, keys: &HostKeys) -> Caller {
        self.caller(Some(keys))
    }

    /// How a client that shows this key speaks TLS to it.
    pub(crate) fn tls(&self, keys: Option<&HostKeys>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the default versions")
            .with_root_certificates(roots);
        match keys {
            None => builder.with_no_client_auth(),
            Some(keys) => {
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(keys.pair.serialize_der()));
                builder.with_client_auth_cert(vec![keys.certificate().into()], key).expect("a pair")
            }
        }
    }

    fn caller(&self, keys: Option<&HostKeys>) -> Caller {
        let client = Client::builder().tls_backend_preconfigured(self.tls(keys)).no_proxy().timeout(SOON);
        let client = client.resolve("localhost", self.address).build().expect("a client");
        Caller { client, base: format!("https://localhost:{}", self.address.port()), token: None }
    }

    /// The hosts as the log has them. When each was heard last is in no log, and is written beside it, now and then, while the server runs.
    pub(crate) async fn hosts_of_the_log(&self) -> Vec<HostListed> {
        let listed = self.store.hosts("", None, 10).await.expect("read");
        listed.into_iter().map(|host| HostListed { heard_ms: None, clock_ahead_ms: None, ..host }).collect()
    }

    /// A person with a token.
    pub(crate) fn person(&self, token: &str) -> Caller {
        Caller { token: Some(token.to_owned()), ..self.anybody() }
    }

    /// Waits until `/readyz` answers so, with these words: that it took too long to look is another matter, and may come first.
    /// Returns the answer.
    pub(crate) async fn until_ready(&self, wanted: StatusCode, words: &str) -> Value {
        let mut last = Value::Null;
        let came = async {
            loop {
                let status;
                (status, last) = self.anybody().get("/readyz").await;
                if status == wanted && last["detail"].as_str().unwrap_or_default().contains(words) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let came = tokio::time::timeout(SOON, came).await;
        assert!(came.is_ok(), "{wanted} with `{words}` did not come: {last}");
        last
    }

    /// Pushes a release as an operator.
    pub(crate) async fn push(&self, documents: &Documents) {
        let (status, answer) = self.person(&self.operator).push(documents.pushed()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    }

    /// [`Running::push`], again and again while no answer comes.
    pub(crate) async fn push_until_there(&self, documents: &Documents) {
        let pushed = async {
            loop {
                match self.person(&self.operator).try_push(documents.pushed()).await {
                    Some((StatusCode::OK, _)) => return,
                    Some(_) | None => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        tokio::time::timeout(SOON, pushed).await.expect("it is taken");
    }
}

/// A folder with what the configuration names. Without another database there is a file in it, and a folder of releases.
fn prepared(fleet: &Fleet, database: Option<Database>) -> (TempDir, CertificateDer<'static>, Config) {
    let dir = tempfile::tempdir().expect("a folder");
    let (certificate, authority) = certificate(dir.path());
    let root = dir.path().join("root.json");
    fs::write_atomic(&root, &fleet.root(1)).expect("a file");
    let releases = dir.path().join("releases");
    fs::make_dir(&releases).expect("a folder");
    let config = Config {
        listen: "127.0.0.1:0".parse().expect("an address"),
        certificate: certificate.clone(),
        certificate_key: certificate,
        root,
        releases: database.is_none().then_some(releases),
        database: database.unwrap_or_else(|| Database::Sqlite(dir.path().join("control-plane.db"))),
        keep_events: Duration::from_hours(24),
        connections_max: CONNECTIONS_MAX,
    };
    (dir, authority, config)
}

async fn serve(config: &Config, means: Means) -> (SocketAddr, Store, (Ender, JoinHandle<()>)) {
    let (server, ender) = Server::start_by(config, means).await.expect("it starts");
    let address = server.address().expect("an address");
    (address, server.store().clone(), (ender, tokio::spawn(server.run())))
}

fn certificate(dir: &Path) -> (PathBuf, CertificateDer<'static>) {
    let pair = KeyPair::generate().expect("randomness");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = params.self_signed(&pair).expect("it signs");
    let path = dir.join("server.pem");
    let pem = format!("{}{}", certificate.pem(), pair.serialize_pem());
    fs::write_atomic(&path, pem.as_bytes()).expect("a file");
    (path, certificate.der().clone())
}

pub(crate) async fn token(store: &Store, name: &str, role: Role) -> String {
    match store.make_token(name, role, now()).await.expect("it is kept") {
        Made::Token(token) => token,
        Made::NameTaken => panic!("{name} is taken"),
    }
}

/// What `host` says who is asked who it is.
pub(crate) fn said(host: &Host, oldest: u64, with_state: bool) -> Hello {
    let state = with_state.then(|| Box::new(nixfleet_core::host::saved::SavedState(host.state.clone())));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &state_bytes(&host.state));
    Hello {
        agent: "0.1.0".to_owned(),
        seq: host.state.seq,
        digest: nixfleet_core::model::names::Sha256::new(digest.as_ref().try_into().expect("32 bytes")),
        oldest,
        state,
    }
}

/// A client.
pub(crate) struct Caller {
    client: Client,
    base: String,
    token: Option<String>,
}

impl Caller {
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> (StatusCode, Value) {
        let request = self.request(method, path).header("content-type", "application/json").body(body);
        let response = request.send().await.expect("an answer");
        let status = response.status();
        let bytes = response.bytes().await.expect("a body");
        let value = serde_json::from_slice(&bytes);
        (status, value.unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned())))
    }

    /// What `get` brings, if an answer comes.
    pub(crate) async fn try_get(&self, path: &str) -> Option<(StatusCode, Value)> {
        self.try_send(Method::GET, path, Vec::new()).await
    }

    async fn try_send(&self, method: Method, path: &str, body: Vec<u8>) -> Option<(StatusCode, Value)> {
        let request = self.request(method, path).header("content-type", "application/json").body(body);
        let response = request.send().await.ok()?;
        let status = response.status();
        Some((status, serde_json::from_slice(&response.bytes().await.ok()?).ok()?))
    }

    /// Reports `records`, if an answer comes.
    pub(crate) async fn try_report(&self, records: &[nixfleet_core::host::Record]) -> Option<EventsTaken> {
        let batch = serde_json::to_vec(&EventBatch { records: records.to_vec() }).expect("JSON");
        match self.try_send(Method::POST, "/v1/agent/events", batch).await? {
            (StatusCode::OK, value) => serde_json::from_value(value).ok(),
            _ => None,
        }
    }

    /// Sends the state of `host`, if an answer comes.
    pub(crate) async fn try_hello(&self, host: &Host) -> Option<EventsTaken> {
        let hello = serde_json::to_vec(&said(host, 1, true)).expect("JSON");
        match self.try_send(Method::POST, "/v1/agent/hello", hello).await? {
            (StatusCode::OK, value) => serde_json::from_value(value).ok(),
            _ => None,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(Method::GET, path, Vec::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send(Method::POST, path, body.to_string().into_bytes()).await
    }

    /// Pushes, and is answered.
    pub(crate) async fn push(&self, lines: Vec<u8>) -> (StatusCode, Value) {
        self.try_push(lines).await.expect("an answer")
    }

    /// Pushes, if an answer comes.
    async fn try_push(&self, lines: Vec<u8>) -> Option<(StatusCode, Value)> {
        let request =
            self.request(Method::POST, "/v1/releases").header("content-type", "application/x-ndjson");
        let response = request.body(lines).send().await.ok()?;
        let status = response.status();
        Some((status, serde_json::from_slice(&response.bytes().await.ok()?).ok()?))
    }

    fn good<T: DeserializeOwned>(answer: (StatusCode, Value)) -> T {
        let (status, value) = answer;
        assert_eq!(status, StatusCode::OK, "{value}");
        serde_json::from_value(value).expect("what was promised")
    }

    /// Reports `records`.
    pub(crate) async fn report(&self, records: &[nixfleet_core::host::Record]) -> EventsTaken {
        let batch = serde_json::to_value(EventBatch { records: records.to_vec() }).expect("JSON");
        Self::good(self.post("/v1/agent/events", &batch).await)
    }

    /// Says hello for `host`, which can still send from `oldest` on.
    pub(crate) async fn hello(&self, host: &Host, oldest: u64, with_state: bool) -> EventsTaken {
        let hello = said(host, oldest, with_state);
        Self::good(self.post("/v1/agent/hello", &serde_json::to_value(hello).expect("JSON")).await)
    }

    /// The host's orders above `after`.
    pub(crate) async fn orders(&self, after: u64) -> Orders {
        Self::good(self.get(&format!("/v1/agent/orders?after={after}")).await)
    }
}
