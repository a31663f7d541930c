//! What a cut has to know: the redactor of the house, for one tenant, as [`portcullis_model::cut`] asks for it. Guards that a
//! text is cleaned before it is looked through, as on its way out. What is taken out here is counted nowhere: counts belong
//! to what was released.

use std::borrow::Cow;

use portcullis_model::TenantId;
use portcullis_model::cut::Secrecy;
use serde_json::{Map, Value};

use crate::clean::clean;
use crate::{Redactions, Redactor};

/// The redactor, for the data of one tenant.
#[derive(Debug)]
pub(crate) struct OfTenant {
    pub(crate) redactor: Redactor,
    pub(crate) tenant: TenantId,
}

impl Secrecy for OfTenant {
    fn text(&self, text: &str) -> Option<String> {
        let visible = clean(text, &mut 0);
        match self.redactor.for_tenant(self.tenant.as_str()).text(&visible, &mut Redactions::default()) {
            Cow::Owned(redacted) => Some(redacted),
            Cow::Borrowed(_) => None,
        }
    }

    fn field(&self, name: &str, value: &str) -> Option<String> {
        if value.is_empty() {
            return None;
        }
        let visible = clean(value, &mut 0);
        let named = (clean(name, &mut 0).into_owned(), Value::String(visible.clone().into_owned()));
        let mut object = Value::Object(Map::from_iter([named]));
        self.redactor.for_tenant(self.tenant.as_str()).value(&mut object, &mut Redactions::default());
        let member = match object {
            Value::Object(members) => members.into_iter().next().map(|(_, member)| member),
            _ => None,
        };
        match member {
            Some(Value::String(redacted)) => (redacted != visible).then_some(redacted),
            // A text that became anything else is none to be shown.
            _ => Some(String::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrecy() -> OfTenant {
        OfTenant { redactor: Redactor::new().unwrap(), tenant: TenantId::default_tenant() }
    }

    #[test]
    fn a_name_tells_and_so_does_a_text() {
        let secrecy = secrecy();
        for (name, value) in [("password", "Tiger4711 lily horse"), ("db.password", "Tiger4711x"), ("api_key", "Tiger4711x9Lily")]
        {
            assert_eq!(secrecy.field(name, value).as_deref(), Some("[redacted:secret-field]"), "{name}");
        }
        assert_eq!(secrecy.field("pod", "checkout-1"), None);
        assert_eq!(secrecy.field("password", ""), None);
        assert_eq!(secrecy.text("nothing to see"), None);
        let hidden = format!("ghp\u{200b}_{}", "16C7e42F292c6912E7710c838347Ae178B4a");
        assert_eq!(secrecy.text(&hidden).as_deref(), Some("[redacted:github-token]"), "a hidden character splits nothing");
    }

    #[test]
    fn marks_are_those_of_the_tenant() {
        let ours = secrecy();
        let theirs = OfTenant { redactor: ours.redactor.clone(), tenant: TenantId::new("other").unwrap() };
        let text = "mail from ana.smith@example.com";
        let released = ours.redactor.for_tenant(ours.tenant.as_str()).text(text, &mut Redactions::default()).into_owned();
        assert_eq!(ours.text(text), Some(released));
        assert_ne!(ours.text(text), theirs.text(text));
    }
}
