//! What a secret looks like. Each rule has literal triggers, so text without any of them is passed through untouched.

/// One kind of secret.
pub(crate) struct Rule {
    /// Name that appears in `[redacted:name]`.
    pub name: &'static str,
    /// Lower-case literals; the expression is only tried where one of them occurs.
    pub triggers: &'static [&'static str],
    /// The expression. Group `v`, if there is one, is what goes; otherwise the whole match.
    pub expression: &'static str,
}

/// The rules, in the order they are applied: the most specific first.
///
/// Formats: the providers' own documentation of their token formats.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        name: "private-key",
        triggers: &["-----begin"],
        expression: r"(?s)-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\z)",
    },
    Rule { name: "jwt", triggers: &["eyj"], expression: r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*" },
    Rule {
        name: "url-credentials",
        triggers: &["://"],
        expression: r#"\b[A-Za-z][A-Za-z0-9+.-]{1,30}://[^\s/:@'"<>]*:(?P<v>[^\s/@'"<>]+)@"#,
    },
    Rule {
        name: "signed-url",
        triggers: &["signature=", "sig=", "x-amz-security-token=", "x-amz-credential="],
        expression: r"(?i)[?&](?:X-Amz-Signature|X-Amz-Security-Token|X-Amz-Credential|X-Goog-Signature|Signature|sig)=(?P<v>[A-Za-z0-9%+/=_.-]{8,})",
    },
    Rule {
        name: "portcullis-key",
        triggers: &["pcl_"],
        expression: r"\bpcl_[A-Za-z0-9]{6,16}_[A-Za-z0-9]{30,60}_[A-Za-z0-9]{4,8}",
    },
    Rule {
        name: "aws-access-key",
        triggers: &["akia", "asia", "abia", "acca"],
        expression: r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b",
    },
    Rule {
        name: "github-token",
        triggers: &["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"],
        expression: r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{40,})",
    },
    Rule {
        name: "gitlab-token",
        triggers: &["glpat-", "gldt-", "glrt-", "glsa_"],
        expression: r"\b(?:gl(?:pat|dt|rt)-[A-Za-z0-9_.-]{20,}|glsa_[A-Za-z0-9]{32}_[A-Fa-f0-9]{8})",
    },
    Rule {
        name: "slack-token",
        triggers: &["xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xapp-", "hooks.slack.com"],
        expression: r"\b(?:xox[abprs]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,}|hooks\.slack\.com/services/(?P<v>[A-Za-z0-9/]{20,}))",
    },
    Rule {
        name: "stripe-key",
        triggers: &["sk_live_", "rk_live_", "sk_test_", "rk_test_", "whsec_"],
        expression: r"\b(?:(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/=]{20,})",
    },
    Rule {
        name: "google-key",
        triggers: &["aiza", "ya29.", "gocspx-"],
        expression: r"\b(?:AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,}|GOCSPX-[A-Za-z0-9_-]{20,})",
    },
    Rule {
        name: "model-provider-key",
        triggers: &["sk-", "hf_", "gsk_", "xai-"],
        expression: r"\b(?:sk-(?:ant-|proj-|svcacct-|or-)?[A-Za-z0-9_-]{24,}|hf_[A-Za-z0-9]{30,}|gsk_[A-Za-z0-9]{40,}|xai-[A-Za-z0-9]{40,})",
    },
    Rule {
        name: "package-token",
        triggers: &["npm_", "pypi-", "dckr_pat_", "cio", "rubygems_"],
        expression: r"\b(?:npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,}|dckr_pat_[A-Za-z0-9_-]{20,}|cio[A-Za-z0-9]{32}\b|rubygems_[a-f0-9]{48})",
    },
    Rule { name: "sendgrid-key", triggers: &["sg."], expression: r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}" },
    Rule {
        name: "cloud-token",
        triggers: &["dop_v1_", "doo_v1_", "hvs.", "hvb.", "dapi", "dp.pt.", "tfp_", "nrak-", "glc_"],
        expression: r"\b(?:do[op]_v1_[a-f0-9]{40,}|hv[bs]\.[A-Za-z0-9_-]{20,}|dapi[a-f0-9]{32}|dp\.pt\.[A-Za-z0-9]{40,}|NRAK-[A-Z0-9]{20,}|glc_[A-Za-z0-9+/=]{30,})",
    },
    Rule {
        name: "azure-key",
        triggers: &["accountkey=", "sharedaccesskey="],
        expression: r"(?i)\b(?:AccountKey|SharedAccessKey)=(?P<v>[A-Za-z0-9+/=]{20,})",
    },
    Rule {
        name: "authorization",
        triggers: &["bearer ", "basic ", "authorization", "bot ", "digest "],
        expression: r#"(?i)\b(?:Bearer\s+(?P<v>[A-Za-z0-9._~+/=-]{8,})|(?:Proxy-)?Authorization["']?\s*[:=]\s*["']?(?:(?:Bearer|Basic|Bot|Token|ApiKey|Negotiate)\s+)?(?P<w>(?:(?:AWS4-HMAC-SHA256|Digest)\s[^\r\n]{6,})|[^\s"',;]{6,})|\bBasic\s+(?P<x>[A-Za-z0-9+/]{12,}={0,2}))"#,
    },
    Rule {
        name: "cookie",
        triggers: &["cookie"],
        expression: r#"(?i)\b(?:Set-)?Cookie["']?\s*[:=]\s*["']?(?P<v>[^\r\n"']{6,})"#,
    },
    Rule {
        name: "secret-value",
        triggers: &[
            "passw",
            "pwd",
            "passphrase",
            "secret",
            "token",
            "api_key",
            "apikey",
            "api-key",
            "access_key",
            "accesskey",
            "access-key",
            "private_key",
            "privatekey",
            "credential",
            "client-key-data",
            "sshkey",
            "signing_key",
            "encryption_key",
            "connectionstring",
            "auth_key",
        ],
        expression: r#"(?i)(?:(?:passw(?:or)?d|passwd|pwd|passphrase|secret|token|api[_-]?key|access[_-]?key(?:[_-]?id)?|private[_-]?key|client[_-]key[_-]data|signing[_-]key|encryption[_-]key|auth[_-]key|credentials?)[A-Za-z0-9_]{0,16})(?:\\?["'])?\s{0,3}(?:=>|:=|=|:)\s{0,3}(?:\\"(?P<v>[^"\\]{3,})|"(?P<w>(?:[^"\\]|\\.){3,})"|'(?P<x>[^']{3,})'|(?P<y>[^\s"'\\,;&|(){}\[\]<>]{4,}))"#,
    },
];

/// Names of fields whose whole value is a secret, normalised: lower case, without `_`, `-`, `.` and spaces.
pub(crate) const SECRET_FIELD_ENDINGS: &[&str] = &[
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "secret",
    "secretkey",
    "token",
    "apikey",
    "accesskey",
    "accesskeyid",
    "privatekey",
    "clientsecret",
    "authorization",
    "cookie",
    "setcookie",
    "clientkeydata",
    "signingkey",
    "encryptionkey",
    "connectionstring",
    "credentials",
    "authkey",
];
