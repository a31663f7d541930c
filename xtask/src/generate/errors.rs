//! `docs/reference/errors.md`: every code a client can meet, who can mend it and how. A new code does not compile here
//! until it has its sentence.

use std::fmt::Write as _;

use portcullis_model::FaultCode;

use super::cell;

const HEAD: &str = "\
<!-- Written by `cargo xtask generate`. -->
# Error codes

Every failure carries one code of this list; branch on it, not on the sentence beside it. The sentence is safe to show;
what only the operator may know is in the server's log and in the audit record (`portcullis audit tail`).

Where it stands: in a failed tool result at `_meta[\"portcullis/code\"]` (with `portcullis/hint` where something would help),
in a JSON-RPC error at `error.data.code` (with `hint` and `retry_after_seconds` where known).

| code | what happened | who can mend it | what to do |
|---|---|---|---|
";

/// The page.
pub(super) fn render() -> String {
    let mut page = HEAD.to_owned();
    for code in FaultCode::ALL {
        let (happened, who, what) = words(code);
        let _ = writeln!(page, "| `{}` | {} | {who} | {} |", code.as_str(), cell(happened), cell(what));
    }
    page
}

/// What happened, who can mend it, what to do.
fn words(code: FaultCode) -> (&'static str, &'static str, &'static str) {
    match code {
        FaultCode::Unauthenticated => (
            "no credential, or one that does not verify: unknown, mistyped, expired or revoked",
            "caller",
            "send `Authorization: Bearer <key>` with a valid key; `portcullis key list` shows the state of each key",
        ),
        FaultCode::Forbidden => (
            "the credential is known but may not do this here",
            "operator",
            "use a credential that may, or change its role, scope or the policies; the audit record names the rule",
        ),
        FaultCode::NotFound => (
            "no such tool, resource, prompt or session for this caller; what a caller may not use does not exist for it",
            "caller",
            "list again; if it should be there, ask the operator to look up the rule in the audit record",
        ),
        FaultCode::InvalidArgument => (
            "the arguments do not fit the schema or contradict each other",
            "caller",
            "read the sentence: it names the argument, what was wrong and what would be right",
        ),
        FaultCode::RateLimited => (
            "too many calls, too many at once, or too many failed log-ins from this address",
            "caller",
            "wait `retry_after_seconds`, then call less often or one after the other; the operator can raise `limits`",
        ),
        FaultCode::DeadlineExceeded => (
            "the call did not end in time",
            "caller",
            "ask about a shorter window, one service or one source; the operator can raise `limits.deadline`",
        ),
        FaultCode::Cancelled => {
            ("the caller cancelled or went away", "caller", "nothing; call again if the answer is still wanted")
        }
        FaultCode::TooLarge => (
            "the answer, or a backend's answer, exceeds its budget; nothing was cut silently",
            "caller",
            "narrow the question: shorter window, a filter, a smaller limit; the operator can raise `limits.answer`",
        ),
        FaultCode::BackendFailed => (
            "no source that was asked could answer; nothing may be concluded from the silence",
            "backend",
            "try again later; `list_sources` and `portcullis doctor` say which source fails and why",
        ),
        FaultCode::NoSource => (
            "no configured source can answer this kind of question within the caller's scope",
            "operator",
            "configure a source with this signal, or send telemetry to the embedded store",
        ),
        FaultCode::Unavailable => (
            "a control of the gate itself is not available, such as the audit log or the key store; the call is refused, not let through",
            "operator",
            "look at `portcullis doctor` and the server's log; often a full or read-only disk",
        ),
        FaultCode::Internal => ("a defect of Portcullis", "developer", "report it with the server's log of that moment"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_row_of_four_cells() {
        let page = render();
        for code in FaultCode::ALL {
            let rows: Vec<&str> = page.lines().filter(|l| l.starts_with(&format!("| `{}` |", code.as_str()))).collect();
            assert_eq!(rows.len(), 1, "{code:?}");
            assert_eq!(rows[0].matches(" | ").count(), 3, "{}", rows[0]);
        }
        assert_eq!(page.lines().filter(|l| l.starts_with("| `")).count(), FaultCode::ALL.len());
    }
}
