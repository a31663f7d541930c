//! The question of lists and calls for somebody who is not calling: what the gate would answer, by which rule, and what the
//! call would be confined to. For operators who ask who may do what.
//!
//! Guards that an answer about the gate is the gate's own: finding, validating and authorizing are its functions, in its
//! order. Must not admit, run or record anything, and lets neither a caller nor a permit out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_identity::{Door, RefusalReason, Transport};
use portcullis_model::{Fault, Principal, TraceContext};
use portcullis_policy::{Budget, Confinement, Policies, Products, Refusal, Wanted};
use portcullis_ports::{Arguments, wants_dry_run};
use serde_json::{Map, Value};

use crate::catalogue::ToolEntry;
use crate::cursors::CURSOR;
use crate::gate::{House, Stop, validated};
use crate::guide::CALL_TOOL;
use crate::steps::needs_yes;
use crate::{Caller, Catalogue};

/// How long the permit of a call that is not made would be good.
const A_MOMENT: Duration = Duration::from_secs(1);

/// A catalogue with its rules and products, to be asked about and not to be called.
pub struct Inquiry {
    house: House,
    budget: Budget,
}

impl std::fmt::Debug for Inquiry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inquiry").field("catalogue", &self.house.catalogue).finish_non_exhaustive()
    }
}

/// What somebody might do.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// Who.
    pub principal: &'a Principal,
    /// Through which product, by name.
    pub product: Option<&'a str>,
    /// Which tool.
    pub tool: &'a str,
    /// With which arguments; without, whether some could be allowed, as a listing asks.
    pub arguments: Option<&'a Map<String, Value>>,
}

/// What the gate would say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prospect {
    /// Whether it would let it through, or list it.
    pub allowed: bool,
    /// The deciding rule, as the record would name it.
    pub rule: Arc<str>,
    /// What there is to say beside the rule.
    pub why: Option<String>,
    /// What it would be confined to. One where the arguments are known; otherwise each of these is what some call would be.
    /// None where it is refused.
    pub confinements: Vec<Confinement>,
}

impl Prospect {
    fn refused(rule: Arc<str>, why: Option<String>) -> Self {
        Self { allowed: false, rule, why, confinements: Vec::new() }
    }
}

impl Inquiry {
    /// Puts together what is asked about. `budget` is what one call may spend.
    pub fn new(catalogue: Catalogue, policies: Policies, products: Products, budget: Budget) -> Self {
        Self { house: House { catalogue, policies, products }, budget }
    }

    /// The rules.
    pub fn policies(&self) -> &Policies {
        &self.house.policies
    }

    /// The products.
    pub fn products(&self) -> &Products {
        &self.house.products
    }

    /// How far back a call with these arguments reads, as its tool says; see [`Asked::reach`](portcullis_policy::Asked::reach).
    pub fn reach_back(&self, tool: &str, arguments: &Map<String, Value>) -> Option<Duration> {
        self.house.catalogue.tool(tool)?.tool.reach_back(&Arguments(arguments.clone()))
    }

    /// What the gate would say to this.
    pub fn ask(&self, wish: &Wish<'_>) -> Prospect {
        let walked = self.caller(wish).and_then(|caller| {
            let entry = self.house.find(&caller, wish.tool)?;
            match wish.arguments {
                Some(arguments) => self.call(&caller, entry, arguments),
                None => Ok(self.listing(&caller, entry)),
            }
        });
        match walked {
            Ok(prospect) => prospect,
            Err(Stop::Refused(rule, fault)) => {
                let schema = (&*rule == "argument-schema").then(|| fault.in_all_words());
                Prospect::refused(rule, fault.internal().map(str::to_owned).or(schema))
            }
            Err(Stop::Failed(fault)) => Prospect::refused(Arc::from(fault.code().as_str()), Some(fault.in_all_words())),
        }
    }

    /// Whoever comes with a good credential, through the product, at the door where tools are called.
    fn caller(&self, wish: &Wish<'_>) -> Result<Caller, Stop> {
        if !wish.principal.opens(Door::Mcp.as_str()) {
            let told = Fault::invalid("the credential is not meant for this door");
            let why = told.with_internal("its credential does not open the door 'mcp'");
            return Err(Stop::refused(RefusalReason::WrongDoor.as_str(), why));
        }
        let refused = |Refusal { rule }| Stop::Refused(rule, Fault::invalid("there is no such product"));
        let product = wish.product.map(|name| self.house.products.open(name, wish.principal)).transpose().map_err(refused)?;
        Ok(Caller { product, ..Caller::new(Arc::new(wish.principal.clone()), Transport::Http, None) })
    }

    fn listing(&self, caller: &Caller, entry: &ToolEntry) -> Prospect {
        let (product, spec) = (caller.product.as_deref(), entry.tool.spec());
        let rule = self.house.policies.reach(product, &caller.principal, Wanted::Tool(spec)).decision.rule;
        let mut confinements = self.house.policies.confinements(product, &caller.principal, spec, self.budget);
        confinements.retain(|one| entry.tool.serves(&one.scope).is_ok());
        for one in &mut confinements {
            one.approval = needs_yes(spec.risk, one.approval, false);
        }
        Prospect { allowed: true, rule, why: None, confinements }
    }

    fn call(&self, caller: &Caller, entry: &ToolEntry, given: &Map<String, Value>) -> Result<Prospect, Stop> {
        let (spec, value) = (entry.tool.spec(), Value::Object(given.clone()));
        let through = self.house.is_guide(spec) && spec.name.as_str() == CALL_TOOL;
        let mut arguments = Arguments(given.clone());
        if through {
            entry.schema.check_shape(&value).map_err(|fault| Stop::refused("argument-schema", fault))?;
        } else if let Some(cleaned) = validated(entry, &arguments, &value)? {
            arguments = cleaned;
        }
        let cursor = entry.tool.cursor_argument().and_then(|name| arguments.0.get(name));
        if cursor.is_some_and(|cursor| !cursor.is_null()) {
            let fault = Fault::invalid("cursor: it cannot be opened here");
            let why = "a cursor is opened by the server that gave it, and not here: ask without it";
            return Err(Stop::refused(CURSOR, fault.with_internal(why)));
        }
        let until = Instant::now() + A_MOMENT;
        let permit = self.house.authorized(caller, entry, &arguments, (until, self.budget), TraceContext::default())?;
        let dry = entry.tool.previews() && wants_dry_run(&arguments);
        let mut confinement = Confinement::from(&permit);
        confinement.approval = needs_yes(spec.risk, confinement.approval, dry);
        // A rule that asks for arguments can leave nothing that is served.
        let unserved = entry.tool.serves(permit.scope()).err();
        let why = if through {
            Some("what it calls is decided as a call of that tool".to_owned())
        } else {
            unserved.map(|fault| format!("the rules let it through, and whoever offers it refuses: {}", fault.message()))
        };
        Ok(Prospect { allowed: true, rule: permit.rule().clone(), why, confinements: vec![confinement] })
    }
}
