//! A redactor as text, for another process of the same server that must write the same marks. It holds the key of the
//! pseudonyms: only ever handed over a line to a process of our own, never stored and never printed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::scan::Tables;
use super::{Inner, RedactionSettings, Redactor};

#[derive(Serialize, Deserialize)]
struct Recipe {
    settings: RedactionSettings,
    key: [u8; 32],
}

impl Redactor {
    /// What [`Redactor::from_recipe`] makes the same redactor of. It holds a key.
    pub fn recipe(&self) -> String {
        let recipe = Recipe { settings: self.inner.settings.clone(), key: self.inner.key };
        serde_json::to_string(&recipe).unwrap_or_default()
    }

    /// The redactor that said this.
    ///
    /// # Errors
    /// A sentence when it is no recipe, or holds a pattern that does not compile.
    pub fn from_recipe(recipe: &str) -> Result<Self, String> {
        // What stands in it is not repeated.
        let Recipe { settings, key } = serde_json::from_str(recipe).map_err(|_| "this is no recipe of a redactor".to_owned())?;
        let extra = settings.compile().map_err(|e| e.to_string())?;
        Ok(Self { inner: Arc::new(Inner { tables: Tables::new(), settings, extra, key }) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ExtraPattern, Redactions};
    use super::*;

    #[test]
    fn both_write_the_same_marks() {
        let settings = RedactionSettings {
            extra_patterns: vec![ExtraPattern { name: "ticket".into(), regex: "TICKET-[0-9]+".into() }],
            ..RedactionSettings::default()
        };
        let first = Redactor::with_settings(&settings, b"a pepper").unwrap();
        let second = Redactor::from_recipe(&first.recipe()).unwrap();
        let text = "TICKET-17 of ada@example.com, password=hunter2hunter2";
        let [one, other] =
            [&first, &second].map(|redactor| redactor.for_tenant("shop").text(text, &mut Redactions::default()).into_owned());
        assert_eq!(one, other);
        assert!(!one.contains("TICKET-17") && !one.contains("ada@") && !one.contains("hunter2"), "{one}");
        assert!(!Redactor::from_recipe("{\"key\": 5}").unwrap_err().contains('5'));
    }
}
