//! What exists, put together: what the house has itself, and then what its extensions offer under names that are theirs.
//!
//! Guards that it is written down whose each name is before anybody can call it.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, bail};
use portcullis_audit::AuditLog;
use portcullis_config::{Expose, ExposeWord};
use portcullis_gateway::{Catalogue, CatalogueBuilder, Exposure};
use portcullis_guard::{Redactor, Sanitizer};
use portcullis_model::Clock;
use portcullis_tools::{INSTRUCTIONS, Library, SourceCompleter, Sources, default_prompts, default_tools};

use crate::extensions::{Extensions, record_names};
use crate::names::{NameBook, News, Round};
use crate::settings::Config;

/// How often names are given anew because another process wrote in between.
const TRIES: usize = 8;

/// Writes down whose each name is before it is used.
pub struct NameWriter<'h> {
    /// The book.
    pub names: &'h NameBook,
    /// Where is recorded who went without.
    pub audit: &'h AuditLog,
    /// What keeps secrets out of that.
    pub redactor: &'h Redactor,
}

impl NameWriter<'_> {
    /// The catalogue, with every name of a tool that is held by somebody, in use or not.
    pub async fn catalogue(
        &self,
        config: &Config,
        sources: &Arc<Sources>,
        extensions: &Extensions,
        clock: &Arc<dyn Clock>,
    ) -> anyhow::Result<(Catalogue, BTreeSet<String>)> {
        let record = |news: &News| record_names(self.audit, self.redactor, news);
        for _ in 0..TRIES {
            self.names.refresh().await?;
            let mut round = self.names.round();
            let catalogue = furnished(config, sources, extensions, clock, &mut round)?;
            if self.names.commit(&round, &record).await? {
                return Ok((catalogue, round.tools().into_keys().collect()));
            }
        }
        bail!("other processes write into the book of names all the time; try again")
    }
}

/// The catalogue a configuration gives in this round of names. Nobody may call anything of it before the
/// round is written down.
pub fn furnished(
    config: &Config,
    sources: &Arc<Sources>,
    extensions: &Extensions,
    clock: &Arc<dyn Clock>,
    round: &mut Round,
) -> anyhow::Result<Catalogue> {
    let sanitizer = Sanitizer::new(config.sanitize.clone()).map_err(anyhow::Error::msg).context("sanitize")?;
    let mut builder = CatalogueBuilder::new()
        .sanitizer(sanitizer)
        .resources(Arc::new(Library::new(sources.clone(), clock.clone())))
        .completer(Arc::new(SourceCompleter::new(sources.clone(), clock.clone())))
        .instructions(INSTRUCTIONS)
        .exposure(exposure(config))?;
    for tool in default_tools(sources, clock) {
        builder = builder.tool(tool)?;
    }
    for prompt in default_prompts() {
        builder = builder.prompt(prompt)?;
    }
    extensions.furnish(&mut builder, round);
    Ok(builder.build())
}

/// Which tools a listing shows.
fn exposure(config: &Config) -> Exposure {
    match &config.tools.expose {
        Expose::Word(ExposeWord::All) => Exposure::All,
        Expose::Word(ExposeWord::Auto) => Exposure::Within(config.tools.auto_limit_tokens),
        Expose::Names(names) => Exposure::Only(names.clone()),
    }
}
