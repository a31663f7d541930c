//! `portcullis key`: make, import, list, rotate and revoke API keys, and hash passwords. A generated secret is printed once,
//! at its making; a chosen one is read from standard input or a file and never printed.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use portcullis_identity::{
    CHOSEN_KEY_PREFIX, Door, KeyRecord, KeyRequest, KeyRing, KeyStatus, Rotation, SecretHash, SecretUse, check_strength,
    local_principal, local_user, networks,
};
use portcullis_model::{Clock, NameSet, Secret, SystemClock, TenantId, Timestamp, parse_duration};
use serde_json::{Value, json};

use crate::cli::{DoorArg, KeyAction, KeyCreateArgs, KeyGrantArgs, KeyImportArgs, KeyRotateArgs};
use crate::house::{Foundations, known_roles};
use crate::look;
use crate::operations::{self, RevokedUnrecorded, change_key, described_key, with_member};
use crate::settings::Config;
use crate::terminal::{paint, say, say_aside, say_json, table};

/// Longest secret that is read, bytes; what is longer is refused by the check, not cut.
const LONGEST_INPUT: u64 = 4096;

/// Runs `portcullis key …`.
pub async fn run(config: &Config, action: KeyAction) -> anyhow::Result<()> {
    match &action {
        KeyAction::HashPassword => return hash_password(),
        KeyAction::List(output) => return list(&look::keys(config).await?, output.json).await,
        KeyAction::Show { id, json } => return show(&look::keys(config).await?, id, *json).await,
        KeyAction::Create(_) | KeyAction::Import(_) | KeyAction::Rotate(_) | KeyAction::Revoke { .. } => {}
    }
    let foundations = match (Foundations::open(config).await, &action) {
        (Ok(foundations), _) => foundations,
        (Err(error), KeyAction::Revoke { id }) => return revoke_unrecorded(config, id, error).await,
        (Err(error), _) => return Err(error),
    };
    let outcome = act(&foundations, config, action).await;
    foundations.close().await;
    outcome
}

/// Takes a key back although nothing can be recorded, and fails with that: a key in wrong hands does not wait.
async fn revoke_unrecorded(config: &Config, id: &str, why: anyhow::Error) -> anyhow::Result<()> {
    let Ok((keys, state, _)) = Foundations::keys_alone(config).await else { return Err(why) };
    let revoked = keys.revoke(id).await;
    state.close().await;
    revoked?;
    Err(why.context(RevokedUnrecorded(id.to_owned())))
}

async fn act(foundations: &Foundations, config: &Config, action: KeyAction) -> anyhow::Result<()> {
    match action {
        KeyAction::Create(args) => create(foundations, config, args).await,
        KeyAction::Import(args) => import(foundations, config, args).await,
        KeyAction::List(output) => list(&foundations.keys, output.json).await,
        KeyAction::Show { id, json } => show(&foundations.keys, &id, json).await,
        KeyAction::Rotate(args) => rotate(foundations, args).await,
        KeyAction::Revoke { id } => {
            let who = local_principal(&local_user(), "admin")?;
            if let Some(record) = operations::revoke_key(foundations, &who, &id).await? {
                say(format!("Key {} ({}) is revoked. Running servers refuse it within a second.", record.id, record.label));
            } else {
                say(format!("The record of key '{id}' could not be read and was removed. Running servers refuse the key."));
            }
            Ok(())
        }
        KeyAction::HashPassword => hash_password(),
    }
}

async fn list(keys: &KeyRing, as_json: bool) -> anyhow::Result<()> {
    let now = SystemClock.now();
    let listed = operations::keys(keys).await?;
    if as_json {
        let values: anyhow::Result<Vec<Value>> = listed.iter().map(|(record, used)| described_key(record, *used, now)).collect();
        say_json(&Value::Array(values?));
        return Ok(());
    }
    if listed.is_empty() {
        say("There are no keys yet. Make one with: portcullis key create --label NAME");
        return Ok(());
    }
    let rows = listed.iter().map(|(r, used)| {
        [
            r.id.to_string(),
            r.label.clone(),
            join(&r.roles),
            join_doors(&r.doors),
            r.tenant.to_string(),
            status(r, now),
            r.expires_at.map_or_else(|| "never".to_owned(), |at| at.to_string()),
            used.map_or_else(|| "never".to_owned(), |at| at.to_string()),
        ]
    });
    say(table(["id", "label", "roles", "scopes", "tenant", "status", "expires", "last used"], rows));
    let aging: Vec<&str> = listed.iter().filter(|(r, _)| r.is_aging(now)).map(|(r, _)| r.id.as_str()).collect();
    if !aging.is_empty() {
        let what = if aging.len() == 1 { "key is due" } else { "keys are due" };
        say(paint::warn(&format!(
            "{} {what}, with a secret older than 90 days or an end within 14: {}. Replace with: portcullis key rotate ID \
             --expires 90d",
            aging.len(),
            aging.join(", ")
        )));
    }
    Ok(())
}

async fn show(keys: &KeyRing, id: &str, as_json: bool) -> anyhow::Result<()> {
    let now = SystemClock.now();
    let record = keys.show(id).await?;
    let used = keys.last_used(&record.id).await?;
    if as_json {
        say_json(&described_key(&record, used, now)?);
        return Ok(());
    }
    let names =
        |set: &NameSet| set.names().map_or_else(|| "all".to_owned(), |n| n.iter().cloned().collect::<Vec<_>>().join(", "));
    let at = |at: Option<Timestamp>| at.map_or_else(|| "never".to_owned(), |at| at.to_string());
    let from = record.from.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let rows = [
        ("id", record.id.to_string()),
        ("label", record.label.clone()),
        ("status", status(&record, now)),
        ("roles", join(&record.roles)),
        ("scopes", join_doors(&record.doors)),
        ("tenant", record.tenant.to_string()),
        ("sources", names(&record.sources)),
        ("services", names(&record.services)),
        ("namespaces", names(&record.namespaces)),
        ("look-back", record.look_back_seconds.map_or_else(|| "all".to_owned(), |s| format!("{s}s"))),
        ("from", if from.is_empty() { "anywhere".to_owned() } else { from }),
        ("created", record.created_at.to_string()),
        ("secret made", record.secret_made_at.to_string()),
        ("expires", at(record.expires_at)),
        ("revoked", at(record.revoked_at)),
        ("last used", at(used)),
    ];
    say(table(["key", ""], rows.map(|(name, value)| [name.to_owned(), value])));
    if record.is_aging(now) {
        say(paint::warn(&format!(
            "Its secret is older than 90 days, or it ends within 14. Replace it with: portcullis key rotate {} --expires 90d",
            record.id
        )));
    }
    Ok(())
}

async fn create(foundations: &Foundations, config: &Config, args: KeyCreateArgs) -> anyhow::Result<()> {
    let who = local_principal(&local_user(), "admin")?;
    let making = foundations.keys.create(request(config, args.grant)?);
    let created = change_key(foundations, &who, "key.create", making, |created| &created.record.id).await?;
    if args.json {
        say_json(&with_member(described_key(&created.record, None, SystemClock.now())?, "key", json!(created.secret.expose())));
        return Ok(());
    }
    say(format!("Key {} for '{}', valid until {}:", created.record.id, created.record.label, end(&created.record)));
    shown_once(&created.secret);
    Ok(())
}

async fn import(foundations: &Foundations, config: &Config, args: KeyImportArgs) -> anyhow::Result<()> {
    let request = request(config, args.grant)?;
    let secret = chosen_secret(args.secret_file.as_deref())?;
    let who = local_principal(&local_user(), "admin")?;
    let importing = foundations.keys.import(request, &secret);
    let record = change_key(foundations, &who, "key.import", importing, |record| &record.id).await?;
    let form = format!("{CHOSEN_KEY_PREFIX}{}_", record.id);
    if args.json {
        say_json(&with_member(described_key(&record, None, SystemClock.now())?, "key_prefix", json!(form)));
        return Ok(());
    }
    say(format!("Key {} for '{}', valid until {}.", record.id, record.label, end(&record)));
    say(format!("Send it as: Authorization: Bearer {form}<your secret>"));
    Ok(())
}

async fn rotate(foundations: &Foundations, args: KeyRotateArgs) -> anyhow::Result<()> {
    let overlap = match args.overlap.as_str() {
        "0" | "0s" => Duration::ZERO,
        text => parse_duration(text).context("--overlap")?,
    };
    let expires_in = args.expires.as_deref().map(parse_duration).transpose().context("--expires")?;
    let secret = args.secret_file.as_deref().map(|file| chosen_secret(Some(file))).transpose()?;
    let (who, rotation) = (local_principal(&local_user(), "admin")?, Rotation { overlap, expires_in, secret });
    let rotating = foundations.keys.rotate(&args.id, &rotation);
    let rotated = change_key(foundations, &who, "key.rotate", rotating, |rotated| &rotated.record.id).await?;
    if args.json {
        let mut value = described_key(&rotated.record, None, SystemClock.now())?;
        value = with_member(value, "old_ends_at", json!(rotated.old_ends_at.to_string()));
        if let Some(secret) = &rotated.secret {
            value = with_member(value, "key", json!(secret.expose()));
        }
        say_json(&value);
        return Ok(());
    }
    let record = &rotated.record;
    let old = if overlap.is_zero() { "ends now".to_owned() } else { format!("ends at {}", rotated.old_ends_at) };
    say(format!("Key {} for '{}' has a new secret, valid until {}; the old one {old}.", record.id, record.label, end(record)));
    match &rotated.secret {
        Some(secret) => shown_once(secret),
        None => say(format!("Send it as: Authorization: Bearer {CHOSEN_KEY_PREFIX}{}_<your secret>", record.id)),
    }
    Ok(())
}

/// Reads a password and prints its hash for the configuration.
fn hash_password() -> anyhow::Result<()> {
    let password = if std::io::stdin().is_terminal() {
        let terminal = console::Term::stderr();
        let ask = |prompt: &str| -> anyhow::Result<Secret> {
            terminal.write_str(prompt)?;
            Ok(Secret::new(terminal.read_secure_line()?))
        };
        let (first, second) = (ask("Password: ")?, ask("Once more: ")?);
        if first != second {
            bail!("the two passwords differ: nothing was hashed");
        }
        first
    } else {
        read_secret(std::io::stdin().lock())?
    };
    check_strength(password.expose(), SecretUse::Password)?;
    say(SecretHash::of(&password)?.as_str());
    Ok(())
}

/// A secret from a file, or from standard input for `-` or no file.
fn chosen_secret(file: Option<&Path>) -> anyhow::Result<Secret> {
    match file.filter(|path| *path != Path::new("-")) {
        Some(path) => {
            let opened = std::fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
            read_secret(opened).with_context(|| format!("reading {}", path.display()))
        }
        None if std::io::stdin().is_terminal() => {
            let terminal = console::Term::stderr();
            terminal.write_str("Secret: ")?;
            Ok(Secret::new(terminal.read_secure_line()?))
        }
        None => read_secret(std::io::stdin().lock()),
    }
}

/// One line: a line end behind it is not part of the secret, anything after that is a mistake.
fn read_secret(input: impl Read) -> anyhow::Result<Secret> {
    let mut text = String::new();
    input.take(LONGEST_INPUT).read_to_string(&mut text).context("the secret is not UTF-8 text")?;
    let text = Secret::new(text);
    let line = text.expose().strip_suffix('\n').unwrap_or(text.expose());
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        bail!("no secret was given: pipe it in, or name a file");
    }
    Ok(Secret::new(line))
}

fn request(config: &Config, args: KeyGrantArgs) -> anyhow::Result<KeyRequest> {
    let roles = known_roles(config);
    if let Some(unknown) = args.role.iter().find(|r| !roles.contains(r.as_str())) {
        let known: Vec<&str> = roles.iter().map(String::as_str).collect();
        bail!("there is no role '{unknown}'; roles are {}", known.join(", "));
    }
    let only = |names: &[String]| if names.is_empty() { NameSet::All } else { NameSet::only(names.iter().cloned()) };
    let administers = args.doors.iter().any(|door| matches!(door, DoorArg::Admin));
    if administers && !args.role.iter().any(|role| role == "admin") {
        say_aside(format!(
            "{} this key opens the admin listener and may do nothing there unless a rule of yours says so; --role admin may",
            paint::warn("note:")
        ));
    }
    let doors: BTreeSet<Door> = args
        .doors
        .iter()
        .map(|d| match d {
            DoorArg::Mcp => Door::Mcp,
            DoorArg::Ingest => Door::Ingest,
            DoorArg::Admin => Door::Admin,
            DoorArg::Metrics => Door::Metrics,
        })
        .collect();
    Ok(KeyRequest {
        label: args.label,
        roles: if doors.iter().any(|door| door.needs_role()) {
            args.role.iter().map(|r| Arc::from(r.as_str())).collect()
        } else {
            BTreeSet::new()
        },
        doors,
        tenant: TenantId::new(&args.tenant)?,
        sources: only(&args.sources),
        services: only(&args.services),
        namespaces: only(&args.namespaces),
        look_back: args.look_back.as_deref().map(parse_duration).transpose().context("--look-back")?,
        from: networks(&args.from).context("--from")?,
        expires_in: Some(parse_duration(&args.expires).context("--expires")?),
    })
}

fn status(record: &KeyRecord, now: Timestamp) -> String {
    match record.status(now) {
        KeyStatus::Active if record.is_aging(now) => paint::warn("rotate"),
        KeyStatus::Active => paint::good("active"),
        KeyStatus::Expired => paint::warn("expired"),
        KeyStatus::Revoked => paint::bad("revoked"),
    }
}

fn end(record: &KeyRecord) -> String {
    record.expires_at.map_or_else(|| "it is revoked".to_owned(), |at| at.to_string())
}

fn shown_once(key: &Secret) {
    say(format!("\n  {}\n", paint::strong(key.expose())));
    say("It is shown this once and cannot be had again. Send it as: Authorization: Bearer <key>");
}

fn join(names: &BTreeSet<Arc<str>>) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn join_doors(doors: &BTreeSet<Door>) -> String {
    doors.iter().map(|d| d.as_str().to_owned()).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_the_secret() {
        for (input, secret) in [("abc", "abc"), ("abc\n", "abc"), ("abc\r\n", "abc"), (" a b \n", " a b ")] {
            assert_eq!(read_secret(input.as_bytes()).unwrap().expose(), secret);
        }
        for nothing in ["", "\n"] {
            assert!(read_secret(nothing.as_bytes()).is_err());
        }
        // A second line stays part of it, and the check of characters refuses it.
        assert_eq!(read_secret(&b"abc\ndef\n"[..]).unwrap().expose(), "abc\ndef");
        assert!(read_secret(&b"\xff\xfe"[..]).is_err());
    }
}
