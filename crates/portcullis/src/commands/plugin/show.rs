//! What a person reads about plugins: what is installed, and what one is and wants.

use portcullis_plugins::{Limits, Manifest, ManifestTool, Package, PackagePlace, PluginSettings, StoreError};
use serde_json::{Value, json};

use super::{fetch, hub, store};
use crate::cli::InfoArgs;
use crate::settings::Config;
use crate::terminal::{paint, say, say_json, table};

/// Runs `portcullis plugin list`.
pub fn list(config: &Config, as_json: bool) -> anyhow::Result<()> {
    let plugins = store(config).list()?;
    if as_json {
        say_json(&serde_json::to_value(&plugins)?);
        return Ok(());
    }
    if plugins.is_empty() {
        say("No plugin is installed. Install one with: portcullis plugin install FILE_ADDRESS_OR_NAME");
        return Ok(());
    }
    let rows = plugins.iter().map(|plugin| {
        let state = match (&plugin.quarantine, plugin.enabled) {
            (Some(_), _) => paint::bad("quarantine"),
            (None, true) => paint::good("enabled"),
            (None, false) => "disabled".to_owned(),
        };
        let signed = plugin.key.clone().unwrap_or_else(|| paint::bad("NOT SIGNED"));
        [plugin.name.to_string(), plugin.version.to_string(), state, signed, plugin.digest.short(), plugin.installed_at.clone()]
    });
    say(table(["name", "version", "state", "key", "digest", "installed"], rows));
    for plugin in plugins.iter().filter(|plugin| plugin.quarantine.is_some()) {
        if let Some(quarantine) = &plugin.quarantine {
            let words = format!("{} is in quarantine since {}: {}", plugin.name, quarantine.at, quarantine.reason);
            say(paint::warn(&format!("{words}. Look into it, then: portcullis plugin enable {}", plugin.name)));
        }
    }
    Ok(())
}

/// Runs `portcullis plugin info`.
pub async fn info(config: &Config, args: &InfoArgs) -> anyhow::Result<()> {
    let as_json = args.json;
    let place = PackagePlace::parse(&args.plugin)?;
    let (package, installed) = match store(config).find(&args.plugin) {
        Ok(installed) if matches!(place, PackagePlace::Hub(_)) => {
            let bytes = store(config).package(&installed)?;
            (Package::read(&bytes)?, Some(installed))
        }
        // A plain name that nobody could look up anywhere else.
        Err(error @ StoreError::Unknown { .. })
            if matches!(place, PackagePlace::Hub(_)) && hub::hubs(config).list()?.is_empty() =>
        {
            return Err(error.into());
        }
        Err(error) if !matches!(error, StoreError::Unknown { .. }) => return Err(error.into()),
        _ => {
            let fetched = fetch::package(config, &place, None, &args.fetch).await?;
            (Package::read(&fetched.package)?, None)
        }
    };
    let manifest = &package.manifest;
    let limits = config.plugins.limits_of(manifest);
    if as_json {
        let grant = config.plugins.grant(&manifest.name);
        let granted: Vec<String> = grant.http.iter().map(ToString::to_string).collect();
        say_json(&json!({"manifest": manifest, "digest": package.digest, "component_bytes": package.component.len(),
            "installed": installed, "limits": limits, "granted": {"http": granted, "secrets": grant.secrets.keys().collect::<Vec<_>>()},
            "sbom_components": components(&package.sbom), "readme": package.readme}));
        return Ok(());
    }
    say(format!("{} {}  {}", paint::strong(manifest.name.as_str()), manifest.version, paint::faint(&package.digest.to_string())));
    say(&manifest.summary);
    let previews = |tool: &ManifestTool| if tool.preview.is_some() { ", shows what it would do" } else { "" };
    let tools: Vec<String> =
        manifest.tools.iter().map(|tool| format!("{} ({}{})", tool.name, tool.risk.as_str(), previews(tool))).collect();
    let signals: Vec<&str> = manifest.signals.iter().map(|signal| signal.as_str()).collect();
    let or_none = |texts: String| if texts.is_empty() { "none".to_owned() } else { texts };
    let mut rows = vec![
        ["licence".to_owned(), manifest.licence.clone()],
        ["homepage".to_owned(), manifest.homepage.clone()],
        ["host API".to_owned(), manifest.host.to_string()],
        ["tools".to_owned(), or_none(tools.join(", "))],
        ["signals".to_owned(), or_none(signals.join(", "))],
        ["made of".to_owned(), format!("{} components, {} bytes", components(&package.sbom), package.component.len())],
        ["limits".to_owned(), shown_limits(&limits)],
    ];
    if let Some(installed) = &installed {
        let signed = installed.key.as_ref().map_or("NOT SIGNED".to_owned(), |key| format!("by key {key}"));
        rows.push(["signed".to_owned(), signed]);
        rows.push(["installed".to_owned(), installed.installed_at.clone()]);
    }
    say(table(["plugin", ""], rows));
    permissions(&config.plugins, manifest);
    Ok(())
}

/// What a package just installed wants, and what of it is granted.
pub fn wants(config: &Config, bytes: &[u8]) -> anyhow::Result<()> {
    permissions(&config.plugins, &Package::read(bytes)?.manifest);
    Ok(())
}

fn permissions(settings: &PluginSettings, manifest: &Manifest) {
    let grant = settings.grant(&manifest.name);
    let word = |granted: bool| if granted { paint::good("granted") } else { paint::warn("not granted") };
    let origins = manifest.permissions.http.iter().map(|origin| {
        let granted = grant.http.iter().any(|granted| granted.covers(origin) || origin.covers(granted));
        ["reach".to_owned(), origin.to_string(), word(granted)]
    });
    let secrets = manifest.permissions.secrets.iter().map(|secret| {
        let granted = grant.secrets.get(&secret.name);
        let how = if secret.read { "read the secret" } else { "have the secret sent" };
        let state = match granted {
            Some(granted) if secret.read && !granted.read => paint::warn("granted, not for reading"),
            granted => word(granted.is_some()),
        };
        [how.to_owned(), format!("{} {}", secret.name, secret.description), state]
    });
    let rows: Vec<[String; 3]> = origins.chain(secrets).collect();
    if rows.is_empty() {
        say("It wants no network and no secrets.");
    } else {
        say(table(["it wants to", "", "plugins.grants"], rows));
    }
}

fn shown_limits(limits: &Limits) -> String {
    format!(
        "{} MiB, {} ms of processor, {} ms in all, {} at once, {} bytes of result, {} HTTP calls",
        limits.memory >> 20,
        limits.cpu_ms,
        limits.wall_ms,
        limits.concurrent,
        limits.result,
        limits.http_calls
    )
}

fn components(sbom: &[u8]) -> usize {
    let sbom: Value = serde_json::from_slice(sbom).unwrap_or_default();
    sbom.get("components").and_then(Value::as_array).map_or(0, Vec::len)
}
