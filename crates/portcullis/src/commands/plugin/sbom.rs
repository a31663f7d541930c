//! The bill of materials of a plugin, from the lock file of its language. Guards that a package says what went into it, or says
//! that this is not known; it never claims to be complete without a lock file.

use std::path::Path;

use anyhow::Context;
use portcullis_plugins::Manifest;
use serde_json::{Value, json};

/// CycloneDX 1.6 as JSON, the same for the same input.
pub fn of(directory: &Path, manifest: &Manifest) -> anyhow::Result<Vec<u8>> {
    let (components, complete) = components(directory)?;
    let name = format!("{}@{}", manifest.name, manifest.version);
    let bom = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "library", "bom-ref": name, "name": manifest.name, "version": manifest.version,
            "licenses": [{"expression": manifest.licence}]}},
        "components": components,
        "compositions": [{"aggregate": if complete { "complete" } else { "unknown" }, "assemblies": [name]}],
    });
    let mut bytes = serde_json::to_vec_pretty(&bom)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn components(directory: &Path) -> anyhow::Result<(Vec<Value>, bool)> {
    let read = |name: &str| -> anyhow::Result<Option<String>> {
        let path = directory.join(name);
        if !path.exists() {
            return Ok(None);
        }
        std::fs::read_to_string(&path).map(Some).with_context(|| format!("reading {}", path.display()))
    };
    if let Some(lock) = read("Cargo.lock")? {
        return Ok((from_cargo(&lock), true));
    }
    if let Some(lock) = read("package-lock.json")? {
        return Ok((from_npm(&lock)?, true));
    }
    match read("requirements.txt")? {
        // Only what is written there; what those need in turn is not known.
        Some(requirements) => Ok((from_pip(&requirements), false)),
        None => Ok((Vec::new(), false)),
    }
}

fn entry(kind: &str, name: &str, version: &str) -> Value {
    json!({"type": "library", "name": name, "version": version, "purl": format!("pkg:{kind}/{}@{version}", name.replace('@', "%40"))})
}

/// Packages of a registry in a `Cargo.lock`: each `[[package]]` has a name, a version and a source line.
fn from_cargo(lock: &str) -> Vec<Value> {
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('='))?;
        Some(line.trim().trim_matches('"').to_owned())
    };
    lock.split("[[package]]")
        .skip(1)
        .filter(|block| value(block, "source").is_some())
        .filter_map(|block| Some(entry("cargo", &value(block, "name")?, &value(block, "version")?)))
        .collect()
}

fn from_npm(lock: &str) -> anyhow::Result<Vec<Value>> {
    let lock: Value = serde_json::from_str(lock).context("package-lock.json is no JSON")?;
    let packages = lock.get("packages").and_then(Value::as_object).context("package-lock.json has no packages")?;
    let named = packages.iter().filter_map(|(path, package)| {
        let name = path.rsplit_once("node_modules/")?.1;
        Some(entry("npm", name, package.get("version")?.as_str()?))
    });
    Ok(named.collect())
}

fn from_pip(requirements: &str) -> Vec<Value> {
    let lines = requirements.lines().filter_map(|line| line.split(['#', ';', ' ', '\\']).next()?.split_once("=="));
    lines.map(|(name, version)| entry("pypi", name.trim(), version.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_files_of_three_languages() {
        let cargo = "version = 4\n\n[[package]]\nname = \"mine\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"serde\"\nversion = \"1.0.2\"\nsource = \"registry\"\n";
        assert_eq!(from_cargo(cargo), [entry("cargo", "serde", "1.0.2")]);
        let npm = r#"{"packages": {"": {"version": "1.0.0"}, "node_modules/@a/b": {"version": "2.0.0"}, "node_modules/x/node_modules/c": {"version": "3.0.0"}}}"#;
        let found = from_npm(npm).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0]["purl"], "pkg:npm/%40a/b@2.0.0");
        assert_eq!(from_pip("# x\nrequests==2.0 \\\n  --hash=sha256:ab\nother>=1\n"), [entry("pypi", "requests", "2.0")]);
    }
}
