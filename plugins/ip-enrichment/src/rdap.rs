//! Whose a network is, from RDAP (RFC 9083) and the way to the right registry (RFC 9224). Guards that of persons nothing is
//! taken along: names only of organisations, no addresses, numbers or mail.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::registry::within;

/// The registry's answer to a question for an address, as far as it is of use here.
pub(crate) fn network(answer: &Value) -> Option<Value> {
    if answer.get("objectClassName")? != "ip network" {
        return None;
    }
    let mut out = Map::new();
    for (from, to) in [
        ("handle", "handle"),
        ("name", "name"),
        ("type", "type"),
        ("country", "country"),
        ("startAddress", "first"),
        ("endAddress", "last"),
        ("parentHandle", "parent"),
    ] {
        if let Some(text) = answer.get(from).and_then(Value::as_str).filter(|text| !text.is_empty()) {
            out.insert(to.to_owned(), json!(short(text)));
        }
    }
    let mut organisations = Vec::new();
    for entity in answer.get("entities").and_then(Value::as_array).into_iter().flatten() {
        let roles: Vec<&str> =
            entity.get("roles").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let owner = roles.iter().any(|role| matches!(*role, "registrant" | "administrative"));
        if let Some(name) = organisation(entity).filter(|_| owner) {
            if !organisations.contains(&name) {
                organisations.push(name);
            }
        }
    }
    if !organisations.is_empty() {
        out.insert("organisations".to_owned(), json!(organisations));
    }
    Some(Value::Object(out))
}

/// The name in a jCard (RFC 7095) that says it is one of an organisation or a group.
fn organisation(entity: &Value) -> Option<String> {
    let properties = entity.get("vcardArray")?.get(1)?.as_array()?;
    let value = |name: &str| {
        let property = properties.iter().find(|property| property.get(0).and_then(Value::as_str) == Some(name))?;
        property.get(3)?.as_str()
    };
    if !matches!(value("kind")?, "org" | "group") {
        return None;
    }
    Some(short(value("fn")?)).filter(|name| !name.is_empty() && !name.contains('@'))
}

fn short(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(120).collect()
}

/// Where questions for `address` go, of a bootstrap file of IANA: the most exact block, over HTTPS.
pub(crate) fn base(bootstrap: &Value, address: IpAddr) -> Option<String> {
    let mut best: Option<(u8, &str)> = None;
    for service in bootstrap.get("services")?.as_array()? {
        let addresses = service.get(1)?.as_array()?.iter().filter_map(Value::as_str);
        let Some(url) = addresses.into_iter().find(|url| url.starts_with("https://")) else { continue };
        for block in service.get(0)?.as_array()?.iter().filter_map(Value::as_str) {
            let Some((first, length)) = block.split_once('/') else { continue };
            let (Ok(first), Ok(length)) = (first.parse::<IpAddr>(), length.parse::<u8>()) else { continue };
            if within(address, first, length) && best.is_none_or(|(known, _)| known < length) {
                best = Some((length, url));
            }
        }
    }
    best.map(|(_, url)| url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_answer_the_network_is_taken_and_no_person() {
        // The form of the example in RFC 9083, section 5.4.
        let answer = json!({
        "objectClassName": "ip network", "handle": "XXXX-RIR", "startAddress": "192.0.2.0", "endAddress": "192.0.2.127",
        "ipVersion": "v4", "name": "NET-RTR-1", "type": "DIRECT ALLOCATION", "country": "AU", "parentHandle": "YYYY-RIR",
        "entities": [
            {"objectClassName": "entity", "handle": "O", "roles": ["registrant"], "vcardArray": ["vcard", [
                ["version", {}, "text", "4.0"], ["fn", {}, "text", "Example Networks"], ["kind", {}, "text", "org"]]]},
            {"objectClassName": "entity", "handle": "P", "roles": ["registrant"], "vcardArray": ["vcard", [
                ["version", {}, "text", "4.0"], ["fn", {}, "text", "Joe User"], ["kind", {}, "text", "individual"],
                ["email", {}, "text", "joe.user@example.com"], ["tel", {}, "uri", "tel:+1-555-555-1234"]]]},
            {"objectClassName": "entity", "handle": "T", "roles": ["technical"], "vcardArray": ["vcard", [
                ["fn", {}, "text", "Somebody Else"], ["kind", {}, "text", "org"]]]}
        ]});
        let network = network(&answer).unwrap();
        assert_eq!(
            (&network["country"], &network["first"], &network["name"]),
            (&json!("AU"), &json!("192.0.2.0"), &json!("NET-RTR-1"))
        );
        assert_eq!(network["organisations"], json!(["Example Networks"]));
        let text = network.to_string();
        assert!(!text.contains("Joe") && !text.contains("555") && !text.contains("Somebody"), "{text}");
        assert_eq!(super::network(&json!({"objectClassName": "domain"})), None);
        assert_eq!(super::network(&json!([])), None);
    }

    #[test]
    fn the_most_exact_block_says_where_to_ask() {
        let bootstrap = json!({"version": "1.0", "services": [
            [["192.0.0.0/8"], ["http://rdap.one.example/", "https://rdap.one.example/"]],
            [["192.0.2.0/24", "2001:db8::/32"], ["https://rdap.two.example/myrdap/"]],
            [["10.0.0.0/8", "nonsense", "1.2.3.4/99"], ["http://only.example/"]]
        ]});
        let asked = |text: &str| base(&bootstrap, text.parse().unwrap());
        assert_eq!(asked("192.0.3.1").unwrap(), "https://rdap.one.example");
        assert_eq!(asked("192.0.2.1").unwrap(), "https://rdap.two.example/myrdap");
        assert_eq!(asked("2001:db8::1").unwrap(), "https://rdap.two.example/myrdap");
        assert_eq!((asked("10.0.0.1"), asked("1.2.3.4")), (None, None));
    }
}
