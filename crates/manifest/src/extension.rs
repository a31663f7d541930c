//! One described API as an extension of the house: its description from a file, or fetched once by digest under a charter.
//!
//! Guards that a description is the one that was looked at before anything of it is offered, and that it is recorded what was
//! let in. Must not fetch anything but the one configured address.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use portcullis_egress::{
    AddressPolicy, EgressClient, EgressConfig, EgressConfigError, EgressRequest, SecretFault, SecretResolver, origin_of,
};
use portcullis_model::{Scope, TenantId};
use portcullis_policy::{Budget, Charter, CharterGrant};
use portcullis_ports::{Extension, Happening, Offer, Report, Standing, Taken, Tool, Witness};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api::{Api, ApiTool};
use crate::document::{Document, DocumentError};
use crate::settings::ApiSettings;
use crate::survey::{Survey, Surveyed, survey};

/// First pause after a description could not be fetched, and the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// An API that cannot be offered as configured. For the operator.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// A setting.
    #[error("api '{name}': {reason}")]
    Setting {
        /// The API.
        name: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The file of the description.
    #[error("api '{name}': cannot read {}: {error}", path.display())]
    File {
        /// The API.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// The description.
    #[error("api '{name}': spec: {error}")]
    Document {
        /// The API.
        name: String,
        /// What is wrong.
        #[source]
        error: DocumentError,
    },
    /// The connection.
    #[error(transparent)]
    Egress(#[from] EgressConfigError),
    /// The secret.
    #[error("api '{name}': auth: {error}")]
    Secret {
        /// The API.
        name: String,
        /// What is wrong.
        #[source]
        error: SecretFault,
    },
}

/// What is offered at the moment.
#[derive(Default)]
struct State {
    tools: Vec<Arc<dyn Tool>>,
    /// What these tools share.
    api: Option<Arc<Api>>,
    reports: Vec<Report>,
    /// What was read, for the record.
    digest: Option<String>,
}

/// The parts the standing work shares with the extension.
struct Shared {
    title: String,
    settings: ApiSettings,
    /// The connection with everything but its address, which may come from the description.
    egress: EgressConfig,
    state: Mutex<State>,
    revision: watch::Sender<u64>,
    /// Where a fetched description is kept.
    kept: Option<PathBuf>,
}

/// One described API.
pub struct ApiExtension {
    shared: Arc<Shared>,
    work: Mutex<Option<JoinHandle<()>>>,
}

impl ApiExtension {
    /// Reads what is on this machine; opens no connection. A description that has to be fetched is fetched after
    /// [`Extension::start`], unless `data` holds it from an earlier run.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn open(settings: &ApiSettings, secrets: &dyn SecretResolver, data: &Path) -> Result<Self, ApiError> {
        let name = settings.name.clone();
        settings.check().map_err(|reason| ApiError::Setting { name: name.clone(), reason })?;
        let mut egress = EgressConfig::new(&name, settings.url.clone().unwrap_or_default());
        if let Some(auth) = &settings.auth {
            egress.authentication =
                auth.authentication(secrets).map_err(|error| ApiError::Secret { name: name.clone(), error })?;
        }
        egress.headers = settings.headers.clone().into_iter().collect();
        egress.tls = settings.tls.clone().into();
        egress.addresses = AddressPolicy::new(settings.allow_addresses.iter().copied());
        egress.connect_timeout = settings.connect_timeout.0;
        egress.read_timeout = settings.timeout.0;
        egress.max_response_bytes = settings.max_response.0;
        egress.concurrency = settings.concurrency;
        let pin = settings.spec.sha256.as_ref().map(|pin| pin.to_ascii_lowercase());
        let kept = settings.spec.url.as_ref().and(pin).map(|pin| data.join("apis").join(pin));
        let shared = Shared {
            title: format!("api {name}"),
            settings: settings.clone(),
            egress,
            state: Mutex::default(),
            revision: watch::channel(0).0,
            kept,
        };
        match (&settings.spec.file, &shared.kept) {
            (Some(path), _) => {
                let bytes = std::fs::read(path).map_err(|error| ApiError::File { name, path: path.clone(), error })?;
                shared.load(&bytes)?;
            }
            (None, kept) => {
                // What was kept and is not what it was is fetched anew.
                let bytes = kept.as_ref().and_then(|path| std::fs::read(path).ok());
                if bytes.is_none_or(|bytes| shared.load(&bytes).is_err()) {
                    shared.say(Standing::Attention, "its description has not been fetched yet");
                }
                if let Some(url) = &settings.url {
                    shared.client(url)?;
                }
            }
        }
        Ok(Self { shared: Arc::new(shared), work: Mutex::default() })
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, standing: Standing, detail: &str) {
        let report = Report { name: self.title.clone(), standing, detail: detail.to_owned() };
        let mut state = self.state();
        state.tools.clear();
        state.reports = vec![report];
    }

    fn client(&self, url: &str) -> Result<EgressClient, EgressConfigError> {
        EgressClient::new(EgressConfig { base_url: url.to_owned(), ..self.egress.clone() })
    }

    /// Takes over a description.
    fn load(&self, bytes: &[u8]) -> Result<(), ApiError> {
        let name = self.settings.name.clone();
        let document = Document::read(bytes, self.settings.max_spec.0, self.settings.spec.sha256.as_deref())
            .map_err(|error| ApiError::Document { name: name.clone(), error })?;
        let base = match &self.settings.url {
            Some(url) => url.clone(),
            None => server_of(&document, &self.settings).map_err(|reason| ApiError::Setting { name: name.clone(), reason })?,
        };
        let client = self.client(&base)?;
        let config = EgressConfig { base_url: base, ..self.egress.clone() };
        let api = Arc::new(Api {
            name: Arc::from(name.as_str()),
            client,
            tenant: self.settings.tenant.clone(),
            open_to_confined: self.settings.open_to_confined,
            answer_tokens: self.settings.answer_tokens,
            admitted: AtomicBool::new(false),
        });
        let Survey { tools, mut reports } = survey(&document, &self.settings);
        let warning = |detail| Report { name: self.title.clone(), standing: Standing::Attention, detail };
        reports.extend(config.warnings().into_iter().map(warning));
        let tools = tools
            .into_iter()
            .map(|Surveyed { spec, plan, reader }| Arc::new(ApiTool { api: api.clone(), spec, plan, reader }) as Arc<dyn Tool>);
        let mut state = self.state();
        state.tools = tools.collect();
        state.api = Some(api);
        state.reports = reports;
        state.digest = Some(document.digest);
        Ok(())
    }

    /// Records what was read. Without a record nothing of it is offered.
    fn record(&self, witness: &dyn Witness) {
        let (api, digest, count) = {
            let state = self.state();
            (state.api.clone(), state.digest.clone(), state.tools.len())
        };
        let (Some(api), Some(digest)) = (api, digest) else { return };
        let happening = Happening {
            what: "api.loaded",
            subject: self.settings.name.clone(),
            admitted: true,
            note: format!("{count} tools of a description with sha256 {digest}"),
        };
        if witness.record(&happening).is_err() {
            // Whoever was shown its tools before cannot call them either.
            self.say(Standing::Broken, "what was read could not be recorded, so nothing of it is offered");
            self.revision.send_modify(|revision| *revision += 1);
        } else {
            api.admitted.store(true, Ordering::SeqCst);
        }
    }

    /// Fetches the description until it is there, or another one is.
    async fn fetch(&self, charter: &Charter, witness: &dyn Witness) {
        let Some(url) = &self.settings.spec.url else { return };
        let mut pause = PAUSE;
        loop {
            match self.fetched(url, charter).await {
                Ok(bytes) => {
                    match self.load(&bytes) {
                        Ok(()) => {
                            self.keep(&bytes);
                            self.record(witness);
                        }
                        Err(error) => self.refuse(witness, &error.to_string()),
                    }
                    self.revision.send_modify(|revision| *revision += 1);
                    return;
                }
                Err(reason) => self.say(Standing::Broken, &format!("its description cannot be fetched: {reason}")),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn fetched(&self, url: &str, charter: &Charter) -> Result<Vec<u8>, String> {
        let mut config = EgressConfig::new(format!("{} description", self.settings.name), url);
        config.addresses = self.egress.addresses.clone();
        config.connect_timeout = self.settings.connect_timeout.0;
        config.read_timeout = self.settings.timeout.0;
        config.max_response_bytes = self.settings.max_spec.0;
        // No credential: it belongs to the API, and the description may be anywhere.
        let client = EgressClient::new(config).map_err(|e| e.to_string())?;
        let request = EgressRequest::get::<String>([]);
        let response = client.send(&charter.permit(), request).await.map_err(|e| e.to_string())?;
        if !response.status.is_success() {
            return Err(format!("status {}", response.status.as_u16()));
        }
        Ok(response.body.to_vec())
    }

    fn refuse(&self, witness: &dyn Witness, reason: &str) {
        self.say(Standing::Broken, reason);
        let happening =
            Happening { what: "api.refused", subject: self.settings.name.clone(), admitted: false, note: reason.to_owned() };
        // It is kept out either way; the report says so too.
        let _ = witness.record(&happening);
    }

    /// Keeps a fetched description for the next start. Not being able to is no failure: it is fetched again.
    fn keep(&self, bytes: &[u8]) {
        let Some(path) = &self.kept else { return };
        let kept = || -> std::io::Result<()> {
            let folder = path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder)?;
            let new = path.with_extension("new");
            std::fs::File::create(&new)?.write_all(bytes)?;
            std::fs::rename(&new, path)
        };
        if let Err(error) = kept() {
            let detail = format!("its description could not be kept, and is fetched again at the next start: {error}");
            self.state().reports.push(Report { name: self.title.clone(), standing: Standing::Attention, detail });
        }
    }
}

/// The first server of a description, with every variable in it set by the operator.
fn server_of(document: &Document, settings: &ApiSettings) -> Result<String, String> {
    let server = document.root().get("servers").and_then(|s| s.get(0)).and_then(|s| s.get("url")).and_then(Value::as_str);
    let Some(template) = server.filter(|url| !url.is_empty()) else {
        return Err("the description names no server; set url".into());
    };
    let mut url = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or("the server of the description has a '{' without '}'; set url")?;
        let value = settings.server_variables.get(name).ok_or_else(|| {
            let shown: String = name.chars().filter(char::is_ascii_graphic).take(40).collect();
            format!("the server of the description has the variable '{shown}'; set it in server_variables, or set url")
        })?;
        url.push_str(before);
        url.push_str(value);
        rest = after;
    }
    url.push_str(rest);
    if !url.starts_with("https://") && !url.starts_with("http://") {
        return Err("the server of the description is relative to where that is; set url".into());
    }
    Ok(url)
}

#[async_trait]
impl Extension for ApiExtension {
    fn name(&self) -> &str {
        &self.shared.title
    }

    fn charter(&self) -> CharterGrant {
        let settings = &self.shared.settings;
        let destinations: BTreeSet<String> = settings.spec.url.iter().filter_map(|url| origin_of(url).ok()).collect();
        CharterGrant {
            name: Arc::from(format!("api-{}-description", settings.name)),
            destinations,
            scope: Scope::tenant_wide(TenantId::default_tenant()),
            time_limit: Duration::from_mins(2),
            budget: Budget { backend_bytes: settings.max_spec.0, ..Budget::default() },
        }
    }

    fn start(&self, charter: Charter, witness: Arc<dyn Witness>) {
        let read = self.shared.state().digest.is_some();
        if read {
            self.shared.record(&*witness);
        } else {
            let shared = self.shared.clone();
            let work = tokio::spawn(async move { shared.fetch(&charter, &*witness).await });
            *self.work.lock().unwrap_or_else(PoisonError::into_inner) = Some(work);
        }
    }

    fn offer(&self, _taken: &Taken) -> Offer {
        // A name that is taken already is left out and reported by the house.
        Offer { tools: self.shared.state().tools.clone(), ..Offer::default() }
    }

    fn revision(&self) -> u64 {
        *self.shared.revision.borrow()
    }

    async fn changed(&self, seen: u64) -> u64 {
        let mut revisions = self.shared.revision.subscribe();
        revisions.wait_for(|now| *now != seen).await.map_or(seen, |now| *now)
    }

    fn report(&self) -> Vec<Report> {
        self.shared.state().reports.clone()
    }

    async fn stop(&self) {
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(work) = work {
            work.abort();
            let _ = work.await;
        }
    }
}
