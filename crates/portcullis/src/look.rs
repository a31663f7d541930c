//! What is kept, for commands that only look at it. Guards that looking makes no file and no directory and brings nothing up
//! to date; where this build cannot read what is there, it is said. Must not write.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use portcullis_gateway::{ApprovalSettings, Approvals, ProfileMode, Profiles};
use portcullis_identity::{KeyRing, Pepper};
use portcullis_model::{Clock, SystemClock};
use portcullis_state::{MemoryStore, SqliteStore, Store, StoreError};

use crate::settings::Config;

/// Where the small durable state is.
pub fn state_file(config: &Config) -> PathBuf {
    config.data.join("state.sqlite")
}

/// The state as it is, to be read; an empty one where there is none yet.
pub async fn state(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    let (file, clock) = (state_file(config), Arc::new(SystemClock));
    let reading = || format!("reading the state in {}", config.data.display());
    if file.try_exists().with_context(reading)? {
        Ok(Arc::new(SqliteStore::open_to_read(&file, clock).await.with_context(reading)?))
    } else {
        Ok(Arc::new(MemoryStore::new(clock)))
    }
}

/// The API keys, to be listed. They verify nobody: that takes the pepper.
pub async fn keys(config: &Config) -> anyhow::Result<KeyRing> {
    Ok(KeyRing::open(state(config).await?, Arc::new(SystemClock), Pepper::in_memory()?).await?)
}

/// The book of approvals in a store.
pub fn approvals(config: &Config, store: Arc<dyn Store>) -> Approvals {
    let settings = ApprovalSettings {
        lifetime: config.approvals.lifetime.0,
        elicitation: config.approvals.elicitation,
        four_eyes: config.approvals.four_eyes,
    };
    Approvals::new(store, Arc::new(SystemClock), settings)
}

/// The book of behaviour profiles in a store.
pub async fn profiles(config: &Config, store: Arc<dyn Store>) -> anyhow::Result<Profiles> {
    let mode = match config.profiles.mode {
        portcullis_config::ProfileMode::Off => ProfileMode::Off,
        portcullis_config::ProfileMode::Observe => ProfileMode::Observe,
        portcullis_config::ProfileMode::DryRun => ProfileMode::DryRun,
        portcullis_config::ProfileMode::Enforce => ProfileMode::Enforce,
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Profiles::open(store, clock, mode).await.context("reading the behaviour profiles")
}

/// Refuses a state of another build, for a command that looks at everything and opens it like a server: that would bring it up
/// to date.
pub async fn refuse_other_schema(config: &Config) -> anyhow::Result<()> {
    match SqliteStore::open_to_read(&state_file(config), Arc::new(SystemClock)).await {
        Ok(store) => {
            store.close().await;
            Ok(())
        }
        Err(error @ (StoreError::OlderSchema { .. } | StoreError::NewerSchema { .. })) => Err(error.into()),
        // Whoever opens it says what is wrong.
        Err(_) => Ok(()),
    }
}
