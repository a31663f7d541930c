//! What words mean to the scanner: classes of words, not phrases of attacks. Whom a text speaks to, what it wants done, with
//! what, and whether somebody is kept from knowing. Must hold no whole sentence: a list of sentences knows only itself.

/// A set of classes, one bit each.
pub(super) type Classes = u128;

macro_rules! classes {
    ($($(#[$doc:meta])* $name:ident = $bit:literal;)*) => { $($(#[$doc])* pub(super) const $name: Classes = 1 << $bit;)* };
}

classes! {
    /// Somebody who reads definitions and acts: the model.
    MODEL = 0;
    /// The reader, spoken to.
    YOU = 1;
    /// Obligation.
    MUST = 2;
    /// Advice.
    SHOULD = 3;
    /// Without exception.
    ALWAYS = 4;
    /// Do not, never, without: what is asked not to happen.
    NOTDO = 5;
    /// Plain negation.
    NOT = 6;
    /// To let somebody know.
    TELL = 7;
    /// To give away what was not known.
    DISCLOSE = 8;
    /// The person behind the model.
    USER = 9;
    /// In a way nobody notices.
    SECRETLY = 10;
    /// To see, to know, to notice.
    KNOW = 11;
    /// Consent, approval, confirmation.
    CONSENT = 12;
    /// Things that may be secret.
    SECRET = 13;
    /// Things that are always secret, and where they lie.
    HARD_SECRET = 14;
    /// Files and what is in them.
    FILE = 15;
    /// What was said between the model and its user.
    TALK = 16;
    /// What the model was told, and what it can do.
    ORDERS_OF_MODEL = 17;
    /// All of something.
    WHOLE = 18;
    /// To take in.
    READ = 19;
    /// To hand on.
    TRANSFER = 20;
    /// To run or call.
    RUN = 21;
    /// To destroy, or to weaken a protection.
    DESTROY = 22;
    /// To make different.
    ALTER = 23;
    /// Whom or what something goes to.
    RECIPIENT = 24;
    /// Earlier than something.
    BEFORE = 25;
    /// On a condition.
    WHEN = 26;
    /// The tool that speaks.
    THIS_TOOL = 27;
    /// Tools that are not the one that speaks.
    OTHER_TOOL = 28;
    /// In place of.
    INSTEAD = 29;
    /// Bad to use.
    UNFIT = 30;
    /// Better than all.
    BEST = 31;
    /// Somebody with power.
    AUTHORITY = 32;
    /// To demand, to permit.
    DEMANDS = 33;
    /// To set aside.
    IGNORE = 34;
    /// Rules, instructions, safeguards.
    RULES = 35;
    /// To do as one is told.
    OBEY = 36;
    /// What becomes of those who do not.
    THREAT = 37;
    /// To say to somebody that something is so.
    SAY = 38;
    /// For the time after this call.
    LASTING = 39;
    /// A place outside: an address, a mail box, a web hook.
    SINK = 40;
    /// Done to something: sent, included, appended.
    DONE = 41;
    /// Wants as an input.
    WANTS = 42;
    /// Who somebody is and where they live.
    PERSONAL = 43;
    /// Whatever the model holds.
    AT_HAND = 44;
    /// What tools gave back.
    RESULT = 45;
    /// Money and contracts.
    PAY = 46;
    /// Each turn of a conversation.
    EVERY_TURN = 47;
    /// Words by which a model is called.
    CALLED = 48;
    /// Asked for politely.
    PLEASE = 49;
    /// Handing on, as a present participle.
    HANDING = 50;
    /// Untruth.
    LIE = 51;
    /// Commands of a shell.
    SHELL = 52;
    /// Protections and records.
    GUARDS = 53;
    /// A new part for the model to play.
    ROLE = 54;
    /// To ask somebody for something.
    ASK = 55;
    /// One more besides.
    BESIDES = 56;
    /// Pressing.
    URGENT = 57;
    /// Out of sight.
    HIDDEN = 58;
    /// To leave away.
    OMIT = 59;
    /// Of a language without the word order of English.
    FOREIGN = 60;
    /// Something is ordered done, set by the reader of sentences and by words that are nothing but orders.
    ORDER = 61;
    /// Weak word for doing without being asked.
    UNASKED = 62;
    /// To choose among several.
    CHOOSE = 63;
    /// Said of silence, whatever else is said.
    HUSH = 64;
    /// Set aside, or given leave, before anybody asked.
    WAIVED = 65;
    /// Those who wrote the definition.
    MINE = 66;
    /// Belonging to the person or the machine.
    THEIRS = 67;
    /// Whatever the case is.
    ANYWAY = 68;
    /// A good outcome.
    GOOD = 69;
    /// What is for sale.
    PROMOTED = 70;
    /// At a later call.
    LATER = 71;
    /// Looks like the name of a tool or parameter that is not the tool's own.
    NAME = 72;
    /// Other, any, every: before a tool.
    DIFFERENT = 73;
    /// A tool, a function, a server.
    TOOL = 74;
    /// What is done to those who do not obey.
    PUNISHED = 75;
    /// Counts more than somebody.
    OUTRANKS = 76;
    /// Done as one is told, of what comes back.
    OBEYED = 77;
    /// Power over a machine or an account.
    PRIVILEGE = 78;
    /// To take up, in passing: phrases for gathering without being asked.
    GATHER = 79;
}

/// Words that may stand as an order.
pub(super) const VERBS: Classes =
    TELL | DISCLOSE | READ | TRANSFER | RUN | DESTROY | ALTER | IGNORE | OBEY | SAY | PAY | LIE | ASK | OMIT | CHOOSE;

/// English words by class, separated by `|`; `*` at the end stands for any ending.
pub(super) const ENGLISH: &[(Classes, &str)] = &[
    (
        MODEL,
        "assistant|assistants|ai|a i|llm|llms|language model|language models|model|models|agent|agents|ai agent|ai assistant|copilot|claude|gpt|chatgpt|gemini|chatbot|bot|cursor",
    ),
    (
        CALLED,
        "note to ai|note to the ai|note to llm|note to the llm|note to the model|note to model|note to the assistant|note to assistant|note for the model|note for the assistant|note for ai|note for llms|note for agents|note to agents|attention ai|attention assistant|attention model|attention agent|attention llm|dear ai|dear assistant|dear model|hey claude|hello assistant|hello model|if you are an ai|if you are a language model|if you re an ai|if an ai is reading|if an llm is reading|if you are an agent|as an ai|instructions for the ai|instructions for ai|instructions for the model|instructions for the assistant|instructions for the agent|instruction for the agent|instruction to the model|instructions to the model|message to the model|message to the assistant|for ai eyes only|for the model only|for model eyes only|for the assistant only|for ai agents|for the ai only|ai instructions|agent instructions|model instructions|llm instructions|assistant instructions|to the model reading this|whoever is reading|directive for",
    ),
    (YOU, "you|your|yourself|yours"),
    (
        MUST,
        "must|shall|have to|has to|need to|needs to|required to|are required|is required|mandatory|obliged to|obligated to|instructed to|expected to|supposed to|ought to|is to|are to|has been told to|requires you|it is essential|it is crucial|it is critical|it is vital|compulsory|strictly required|make sure|be sure|ensure|remember to|do not forget to|don t forget to|see to it|necessary to|task is to|job is to|duty is to",
    ),
    (SHOULD, "should|recommended|had better|advisable|is best to|supposed|ideally"),
    (PLEASE, "please|kindly|just|simply|go ahead"),
    (
        ALWAYS,
        "always|every time|each time|at all times|without exception|invariably|regardless|no matter what|in all cases|under all circumstances|in any case|unconditionally|automatically|without fail|on each call|on every call|with every call|with each call",
    ),
    (
        EVERY_TURN,
        "every request|every question|every message|every conversation|every turn|every query|every task|every interaction|every session|every prompt|every response|every answer|every reply|each request|each question|each message|each conversation|each turn|each query|each task|each interaction|each session|each prompt|each response|each reply|any request|any question|any query|any task|any other action|all requests|all questions|all tasks|all conversations|all queries|any conversation|start of a conversation|start of the conversation|beginning of the conversation|beginning of a conversation|start of a session|start of the session|beginning of the session|anything else|anything at all|doing anything|everything else|whatever the user asks|whatever the user wants|whatever the question|regardless of the question|regardless of what",
    ),
    (
        NOTDO,
        "do not|don t|dont|never|must not|mustn t|should not|shouldn t|shall not|without|avoid|refrain|no need to|needn t|need not|not to|don t ever|under no circumstances|rather than|instead of|nor|neither|and not|but not|stop",
    ),
    (NOT, "not|no|never|nothing|none|cannot|can t|won t|isn t|aren t|doesn t|unaware|nobody|no one|needn t|don t|without"),
    (
        TELL,
        "tell|telling|inform|informing|notify|notifying|alert|alerting|show|showing|display|displaying|report|reporting|explain|explaining|warn|warning|confirm|confirming|worry|let on|bring up|talk about|communicate|present|describe|bother|involve|consult|consulting|let|point out|raise|announce|mention|mentioning|reveal|revealing|disclose|disclosing|share|sharing|expose|ask|asking|admit|visible|shown",
    ),
    (
        DISCLOSE,
        "mention|mentioning|disclose|disclosing|reveal|revealing|acknowledge|acknowledging|discuss|discussing|refer to|referring to|allude|surface|admit|admitting|give away|let on|bring up|draw attention|drawing attention|comment on|talk about|speak of|describe this|explain this|explain why",
    ),
    (
        USER,
        "user|end user|human|operator|person|customer|anyone|anybody|people|owner|someone|them|humans|the users|client|reader|they",
    ),
    (
        SECRETLY,
        "silently|secretly|quietly|covertly|discreetly|stealthily|unnoticed|surreptitiously|on the quiet|without drawing attention|without a trace|without being noticed|without anyone noticing|without mention|inconspicuously|unobtrusively|without telling|without notice|without comment|sneakily|on the sly|on the side",
    ),
    (
        UNASKED,
        "in the background|behind the scenes|under the hood|transparently|automatically|on your own|by yourself|proactively|unprompted",
    ),
    (
        KNOW,
        "know|knows|see|sees|seen|notice|notices|aware|learn|learns|informed|told|shown|notified|realise|realize|be asked|find out|visible|bothered|understand|hear|read about|involved|alerted",
    ),
    (
        CONSENT,
        "confirmation|confirmations|approval|approvals|consent|permission|knowledge|authorization|authorisation|asking|prompting|agreement|awareness|confirming|checking with|waiting for|say so|go ahead from|sign off|human review|review by",
    ),
    (
        SECRET,
        "password|passwords|passphrase|token|tokens|access token|api key|api keys|api token|credential|credentials|secret|secrets|access key|access keys|cookie|cookies|jwt|login|keys|auth header|authorization header|bearer|connection string|connection strings|signing key|encryption key|pin code|client secret",
    ),
    (
        HARD_SECRET,
        "ssh|private key|private keys|ssh key|ssh keys|id rsa|id ed25519|id ecdsa|id dsa|authorized keys|known hosts|seed phrase|recovery phrase|mnemonic|wallet|keychain|keyring|environment variable|environment variables|env vars|env var|process env|browser cookies|session cookie|session cookies|aws credentials|aws config|credit card|card number|cvv|social security|one time password|one time code|otp|recovery codes|backup codes|master password|etc passwd|etc shadow|mcp json|claude desktop config|bash history|zsh history|shell history|git credentials|gitconfig|netrc|npmrc|pypirc|pgpass|gnupg|docker config json|dotenv|env file|env files|service account key|service account token|service account json|saved passwords|password store|password database|login data|tfstate|terraform tfvars|secrets yaml|secrets yml|credentials json|credentials file|kubeconfig|kube config|azure credentials|gcloud|boto|vault token|github token|slack token|bearer token|oauth token|refresh token|refresh tokens|session token|session tokens|metadata service|169 254 169 254|printenv|cursor config|vscode settings|ssh config|local storage|private repositories|private repository|private repos|medical records|bank details|bank account number|tax id",
    ),
    (
        FILE,
        "file|files|folder|folders|directory|directories|home directory|disk|filesystem|file system|contents|content|source code|codebase|repository|workspace|config|configuration|documents|desktop|downloads|readme|clipboard|screenshot|inbox|emails|calendar|contacts|database|logs|photos|spreadsheet|attachments",
    ),
    (
        TALK,
        "conversation|conversations|chat|chats|chat history|message history|conversation history|transcript|dialogue|dialog|previous messages|prior messages|earlier messages|last messages|recent messages|messages so far|all messages|user messages|context window|conversation context|full context|entire context|whole context|complete context|reasoning|chain of thought|thoughts|thinking|scratchpad|discussion|user s message|user s messages|user s prompt|user s request|user s question|user s query|user s words|user prompt|user message|original prompt|user wrote|user said|user has said|user has written|user typed|user asked|was said|said so far|said before|been said|been discussed|talked about|sidenote|side note|exchange so far|session history|this session|previous turns|earlier turns|interaction history|what we discussed|the prompt|your memory|memories",
    ),
    (
        ORDERS_OF_MODEL,
        "system prompt|system prompts|system message|system instructions|your instructions|your guidelines|your rules|your prompt|your configuration|developer message|developer prompt|hidden prompt|initial instructions|original instructions|initial prompt|custom instructions|list of tools|list of available tools|available tools|tool definitions|tool list|tool names|tools you have|tools you can|your tools|connected servers|other servers|names of all tools|installed servers|tool descriptions|tool schemas|your context|your capabilities|your model name|model name and version|instructions you were given|instructions you received|instructions you have been given|preceding instructions|everything above|text above|the above text",
    ),
    (
        WHOLE,
        "entire|full|complete|whole|all|every|everything|verbatim|raw|any|word for word|in full|so far|previous|prior|recent|last|exact|original|unabridged|unredacted|earlier|each|total|until now|up to now|to date|of the user|user s|as is|literal|unedited|both sides",
    ),
    (
        READ,
        "read|open|cat|load|fetch|access|retrieve|get|dump|list|collect|gather|extract|search|scan|find|look up|look for|look through|look into|locate|enumerate|inspect|view|check|query|examine|obtain|grab|pull|harvest|browse|walk through|traverse|grep|take|capture|copy|pick up|decrypt|decode|recall",
    ),
    (
        TRANSFER,
        "send|forward|upload|post|transmit|pass|include|append|attach|copy|paste|put|insert|embed|add|supply|provide|submit|relay|share|bcc|cc|email|mail|publish|exfiltrate|leak|write|store|save|log|place|fill|deliver|hand over|hand|enclose|populate|echo|output|stash|mirror|sync|ship|feed|pipe|concatenate|prepend|report|reproduce|repeat|return|dump|print|encode|type|tack on|give|disclose|reveal|quote|deposit|set|drop|serialise|serialize|move|archive|stream|tuck|slip|push|pack|record|render|load",
    ),
    (
        HANDING,
        "sending|forwarding|uploading|passing|including|appending|attaching|copying|pasting|inserting|embedding|supplying|providing|submitting|sharing|containing|with the contents of|with the content of|contents of|content of|text of",
    ),
    (
        DONE,
        "sent|forwarded|uploaded|posted|passed|included|appended|attached|copied|pasted|put|inserted|embedded|added|supplied|provided|submitted|shared|written|stored|saved|logged|placed|filled|delivered|handed|relayed|transmitted|mirrored|recorded|reported|archived|given|quoted|encoded|collected|read|fetched|extracted|bcc d|cc d|routed|redirected|changed|replaced|set",
    ),
    (
        RUN,
        "run|execute|invoke|call|use|trigger|perform|start|launch|evaluate|install|download|eval|visit|navigate|request|activate|apply|issue|make|initiate|spawn|schedule|connect|consult|go to|click|follow|curl|wget|ping",
    ),
    (
        SHELL,
        "curl|wget|bash|powershell|chmod|sudo|nc|netcat|crontab|shell command|rm rf|eval|base64 d|printenv|whoami|sh c|bash c|npm install|pip install|ssh keygen|nslookup|osascript|reverse shell",
    ),
    (
        DESTROY,
        "delete|remove|wipe|erase|disable|uninstall|overwrite|kill|revoke|approve|accept|grant|merge|deploy|truncate|purge|turn off|deactivate|switch off|allow|authorize|authorise|elevate|escalate|shut down|corrupt|weaken|disarm|whitelist|unlock|force push|commit|make public",
    ),
    (PAY, "transfer|pay|purchase|buy|subscribe|wire|donate|withdraw|upgrade|charge|refund|sell|order"),
    (
        ALTER,
        "change|replace|redirect|modify|alter|swap|substitute|rewrite|set|override|reroute|route|switch|adjust|edit|prepend|append|add|increase|decrease|reduce|double|round|insert|tamper|use|point|bcc|cc|include|put|raise|lower|multiply|turn",
    ),
    (
        RECIPIENT,
        "recipient|recipients|destination|account number|iban|amount|amounts|wallet address|payee|to field|bcc|cc|account|beneficiary|target|email address|e mail address|address|remote|registry|download url|base url|endpoint|price|prices|phone number|reply to|number of shares|bank details|package name|branch|cc field|bcc field|results|output|arguments|parameters",
    ),
    (
        BEFORE,
        "before|prior to|first|ahead of|beforehand|in advance of|as a first step|as the first step|at the start|at the beginning|preceding|precondition|prerequisite|as a prerequisite|to begin|to start with|initially",
    ),
    (
        WHEN,
        "when|whenever|if|once|after|while|as soon as|each time|every time|in case|upon|until|during|on|for|where|as long as|following|in order to|to|any time|anytime|the moment|should",
    ),
    (
        THIS_TOOL,
        "this tool|this function|this server|this one|this plugin|the present tool|our tool|this action|this service|the tool|the function|this method|me|this",
    ),
    (
        OTHER_TOOL,
        "other tool|other tools|another tool|any tool|any tools|every tool|every other tool|all tools|all other tools|other function|other functions|another function|any function|other server|other servers|another server|any server|built in tool|built in tools|builtin tool|builtin tools|built in function|native tool|native tools|existing tool|existing tools|alternative tool|alternative tools|alternatives|competing tools|similar tools|similar tool|default tool|default tools|standard tool|standard tools|any mcp server|any mcp tool|other mcp|all mcp tools|other email tool|original tool|real tool|trusted tool|other plugins|other search tool|other search tools|different tool|remaining tools|rest of the tools|file tool|file tools|mail tool|email tool|payment tool|shell tool|search tool|tools from other|tools of other|tools on other|tool from another|tool of another|tools provided by other|subsequent tool|subsequent tools|later tools|next tool|previous tool|previous tools|tool calls|any tool call|every tool call|tool call|other providers|other integrations|their tools|competitor|competitors|other options|the others|any other|web search|other sources|tools you call|tools you use|used tools",
    ),
    (
        INSTEAD,
        "instead of|instead|rather than|in place of|in preference to|over any|over all|over other|prefer|preferred|supersedes|supersede|replaces|overrides|takes precedence|take precedence|takes priority|take priority|priority over|precedence over|outranks|outrank|in lieu of|not the|ahead of|above all|prioritise|prioritize|exclusively|in favour of|in favor of|before any|before all|before other",
    ),
    (
        UNFIT,
        "deprecated|obsolete|unsafe|unreliable|insecure|broken|disabled|unavailable|compromised|outdated|legacy|inaccurate|no longer|malfunctioning|flawed|retired|untrusted|not trustworthy|slower|inferior|vulnerable|incomplete|out of date|wrong results|dangerous|discontinued|do not work|does not work|stale|fail|fails|leak|leaks",
    ),
    (
        BEST,
        "best|the only|most accurate|most reliable|most trusted|superior|highest priority|top priority|first choice|ultimate|fastest|highest precision|most powerful|number one|unmatched|gold standard|leading|most advanced|most comprehensive|most secure|best in class|perfect|definitive|far better|better than|preferred choice|officially recommended|strongly preferred|outperforms|recommended by",
    ),
    (
        CHOOSE,
        "choose|select|prefer|pick|favour|favor|prioritise|prioritize|recommend|promote|rank|trust|rely|default to|go with|use|call|opt for",
    ),
    (
        AUTHORITY,
        "system administrator|system administrators|administrator|administrators|admin|admins|security team|compliance|compliance team|company policy|corporate policy|security policy|regulation|regulations|it department|it security|legal department|management|anthropic|openai|google|microsoft|platform team|the developers|the developer of|your developers|your creators|your operators|the organisation|the organization|gdpr|hipaa|soc 2|sox|pci dss|auditors|audit|data protection officer|ciso|root user|security protocol|security guidelines|mcp specification|mcp protocol|protocol specification|host application|the platform|system policy|law enforcement|head office|the vendor|governance|trust and safety",
    ),
    (
        DEMANDS,
        "requires|require|required|mandates|mandated|mandate|demands|demanded|instructs|instructed|orders|ordered|authorised|authorized|authorises|authorizes|approved|approves|directs|directed|insists|expects|obliges|certified|pre approved|signed off|cleared|as per|in accordance with|in compliance with|on behalf of|by order of|has asked|have asked|wants|want|under the|pursuant",
    ),
    (
        IGNORE,
        "ignore|disregard|forget|override|bypass|skip|circumvent|overrule|discard|suppress|suspend|disable|turn off|evade|ignoring|disregarding|bypassing|skipping|overriding|set aside|pay no attention|dismiss|drop|waive|neglect|overlook|defeat|relax|lift",
    ),
    (
        RULES,
        "instruction|instructions|rule|rules|guideline|guidelines|policy|policies|restriction|restrictions|safety|guardrail|guardrails|safeguard|safeguards|prompt|prompts|directive|directives|constraint|constraints|confirmation|confirmations|approval|approvals|consent|warning|warnings|checks|permission|permissions|verification|filter|filters|review|reviews|protections|security|refusal|refusals|objections|limits|limitations|what the user|user s request|user s wishes|user s instructions|confirmation prompt|confirmation dialog|training|programming|alignment|moderation|orders|scepticism|doubts",
    ),
    (
        GUARDS,
        "logging|audit|audit log|audit logs|audit trail|monitoring|firewall|antivirus|anti virus|endpoint protection|two factor|mfa|2fa|alerts|alerting|safety filter|sandbox|sandboxing|branch protection|tls verification|certificate validation|ssl verification|signature verification|access control|rate limits|human review|guardrails|redaction|permission checks|security checks|confirmation step|approval step",
    ),
    (
        OBEY,
        "obey|follow|comply|carry out|adhere|treat|trust|accept|execute|act on|act upon|heed|respect|honour|honor|do as|do what|interpret|regard|consider|believe|implement|apply|perform",
    ),
    (
        ROLE,
        "you are now|you are no longer|act as|pretend to be|roleplay|role play|new instructions|new rules|new directive|new directives|new role|new persona|new system prompt|new task|developer mode|debug mode|maintenance mode|god mode|admin mode|sudo mode|unrestricted mode|jailbreak|jailbroken|unrestricted|no restrictions|without restrictions|dan mode|your real task|your true purpose|your real purpose|your primary goal|your new goal|your actual task|your real goal|your mission|your only goal|your new job|updated instructions|system override|instruction override|override code|root access granted|priority override|end of instructions|end of prompt|end of system|end of description|end of tool description|begin instructions|begin system|start of instructions|hidden instruction|hidden instructions|secret instruction|secret instructions|special instruction|special instructions|supersede all|unlocked mode",
    ),
    (
        THREAT,
        "fail|fails|crash|crashes|lost|terminated|corrupted|deleted|penalised|penalized|penalty|not work|rejected|suspended|banned|blocked|denied|shut down|consequences|broken|wrong|invalid|unusable|error|errors|locked|violation|breach|incorrect|data loss|legal action|fired|refuse|stop working|disconnected|punished|liable|security incident|outage",
    ),
    (
        SAY,
        "say|answer|respond|reply|claim|state|tell|recommend|suggest|assure|convince|insist|advise|persuade|conclude|present|inform|declare|promise|mention|announce|begin|end|finish|start|advertise|promote|encourage|urge|steer|praise|portray",
    ),
    (
        LIE,
        "pretend|lie|fabricate|make up|mislead|deceive|invent|falsify|fake|misreport|act as if|act as though|claim that|feign|hallucinate|downplay|cover up|disguise|conceal|play dumb|make it look|make it seem|make it appear",
    ),
    (
        LASTING,
        "future conversations|future requests|future sessions|future chats|future messages|future tool calls|future calls|future interactions|future responses|future answers|rest of the conversation|rest of the session|rest of this conversation|rest of this session|remainder of the conversation|remainder of the session|remainder of this|all subsequent|every subsequent|any subsequent|from now on|henceforth|from this point|from here on|hereafter|going forward|permanently|for good|long term memory|persistent memory|claude md|cursorrules|cursor rules|agents md|gemini md|copilot instructions|memory bank|rules file|next time|later sessions|after this conversation|until told otherwise|until further notice|as long as this server|while this server|once loaded|when this tool is loaded|when this tool is available|whenever this tool is available|while this tool is|once this tool is|as soon as this tool is|by being connected|once connected",
    ),
    (
        WANTS,
        "requires|needs|expects|works best with|works best when|more useful when|more accurate when|better when|better if|only works with|depends on|for best results|for better results|for accurate results|to work properly|to function properly|to work correctly|to function correctly|in order to work|must contain|should contain|must hold|must include|must be|should be|should hold|should include|needed for|needed to|necessary for|used for|takes|accepts|is derived from|improves|to personalise|to personalize|for personalisation|for personalization|for context|for quality|for telemetry|for billing|for debugging|for analytics|for auditing|for diagnostics|for verification|for authentication|for calibration",
    ),
    (
        PERSONAL,
        "full name|email address|e mail address|home address|phone number|date of birth|location|ip address|personal data|personal information|personal details|employer|salary|health|passport|contacts|contact list|browsing history|search history|hostname|username|user name|user id|machine name|os version|mac address|geolocation|calendar|birthday|identity|job title|whoami|user s name|name of the user|user s email|user s location|user s address|user s phone|user s ip",
    ),
    (
        AT_HAND,
        "you know|you have|you hold|you can access|you were given|you have access to|you remember|you have seen|you can see|you can find|you find|available to you|in your context|in your memory|in memory|in the environment|from the environment|in context|seen so far|known so far|you are aware of|you possess|at your disposal|within reach|accessible to you|available in|you received|encountered|you learned|you used|used in this session|in scope|on this machine|on the machine|on the user s machine|of the host|on disk|present on",
    ),
    (
        RESULT,
        "result|results|output|outputs|response|responses|data|arguments|parameters|return value|return values|answer|answers|error message|stack trace|payload",
    ),
    (
        SINK,
        "webhook|web hook|external server|external service|external endpoint|external address|remote server|remote endpoint|our server|our endpoint|our api|third party|collector|collection endpoint|logging endpoint|telemetry endpoint|analytics endpoint|backup server|drop box|pastebin|ngrok|requestbin|webhook site|pipedream|interactsh|public gist|public repository|public repo|public channel|dns query|dns lookup|subdomain|gist|telegram bot|discord webhook|monitoring endpoint|audit endpoint|relay|zzurl|zzbox",
    ),
    (ASK, "ask|prompt|request|require|urge|get|make|have|invite|instruct|convince"),
    (
        BESIDES,
        "also|additionally|as well|in addition|too|a copy|copy of|duplicate|moreover|besides|plus|along with|together with|on top|at the same time|as an extra",
    ),
    (
        URGENT,
        "urgent|urgently|immediately|at once|important|critical|crucial|essential|vital|mandatory|attention|warning|top priority|high priority|asap|without delay|right away|emergency|very important|extremely important|critical instruction|important instruction|mandatory step|required step|security notice|system notice|notice|security requirement",
    ),
    (
        HIDDEN,
        "secret|hidden|invisible|confidential|private|unnoticed|concealed|silent|quiet|between us|to yourself|undisclosed|unmentioned|out of sight|transparent|internal|opaque|off the record|unreported|not visible",
    ),
    (OMIT, "omit|exclude|leave out|strip|hide|leave|keep|drop|remove|conceal|suppress|redact|withhold|remain|stay|filter out"),
    (
        MODEL,
        "caller|callers|host|hosts|whoever calls|whoever uses|mcp client|client application|chat model|the agent|ai system|ai systems|this agent|calling agent|calling model",
    ),
    (
        MUST,
        "bound to|be certain|take care to|requires that|require that|it is necessary|is needed|are needed|is imperative|want you to|wants you to|would like you to|be so kind|have got to|be careful to|only works if|only works once|works only once|works only if|works only after|does not work until|belongs|belong|is customary|counts on you|it is your duty|needs|need",
    ),
    (
        TALK,
        "this chat|the chat|our chat|chat log|messages exchanged|messages of this|last messages|what has been said|what was discussed|user has been|conversation log|both sides of|user input|the prompt you|prompt you operate|wording of the user|everything the user|anything the user|user has asked|talked about so far|dialogue history|ten messages|the exchange|your notes on the user|last user message|user s last|their messages|current discussion|thread so far|session transcript",
    ),
    (
        ORDERS_OF_MODEL,
        "rules you were|instructions you|prompt you operate|prompt you run|instructions in your|your operating instructions|their instructions|hidden reasoning|your hidden|setup you|you were set up|your system|your setup|your model|tools you|functions you|which tools|installed tools|every tool you|connected tools|list of installed|list of functions|list of servers|configured servers|the developer message|your training|tool inventory|other servers returned|other tools returned",
    ),
    (
        HARD_SECRET,
        "key store|keystore|vault|password vault|saved logins|browser logins|logins|vpn credentials|environment of the process|full environment|process environment|secret access key|secrets file|password file|passwords file|key file|deployment credentials|passport number|maiden name|payroll|pgp key|gpg key|personal access token|production credentials|admin password|security code|card details|cvc|wallet file|private documents|password reset|ssh configuration|key material|decryption key|env output|terraform state|hosts yml|crypto wallet|account password|root password|bank account|salary table|users table|social security number|payment details|iban and|login and password|usernames and passwords|deploy key|deploy keys|signing keys|certificates and keys|all keys|the keys|api keys",
    ),
    (
        FILE,
        "source|folder tree|file names|names of all files|address book|tables|private notes|notes folder|mailbox|mail box|history|open files|workspace|all notes|full text|project tree|photo|photos|bookmarks|installed packages|process list|network configuration|lockfile|manifest files",
    ),
    (
        READ,
        "look at|go through|look over|dig|go over|peek|study|note down|survey|crawl|glance|record|monitor|watch|track|dig up|dig out|read out|read through|take note of|look inside|export|dump out|unpack|work through|use the browser to open",
    ),
    (
        TRANSFER,
        "hand in|hand over|export|push|dispatch|quote|pass on|pass along|prefix|suffix|give away|send over|send along|send on|put into|fold into|pack into|make available|mention in|carry|submit to|hold|communicate|route|end each|start each|spell out|list them|surface",
    ),
    (
        DONE,
        "mailed|dispatched|exported|treated|carried out|paid|opened|handed over|avoided|executed|obeyed|followed|kept|skipped|hidden|removed|deleted|approved|granted|used|called|loaded|retrieved|copied over|put into|quoted|listed|made public|disabled|turned off|overwritten|ignored|disclosed|revealed|forwarded on|swapped|passed on|passed along|gathered|attached",
    ),
    (
        HANDING,
        "exporting|pasting|quoting|handing over|relaying|transmitting|concatenated|concatenation of|the text of|the contents of|the content of|all contents|accompany|accompanies|accompanied by|along with|plus any|plus its|plus all|taken from|copied from|read from the user|dump of|copy of the|log of the|list of all|full list of",
    ),
    (
        USER,
        "traveller|passenger|account holder|patient|employee|visitor|buyer|the person|caller of|the owner|guests|consumer|victim|end users|the customer|the human|the operator|the developer|staff|the team|colleagues",
    ),
    (
        HUSH,
        "keep that to yourself|keep it to yourself|keep this to yourself|keep quiet|keep silent|stay silent|stay quiet|remain silent|say nothing|not a word|no mention|without a word|between us|under the radar|off the record|leave no trace|no trace|leave no record|nobody needs to|no one needs to|nobody has to|no one has to|nobody should|no one should|nobody must|no one must|nobody will|nobody may|step to yourself|tell nobody|tell no one|telling anyone|tell anyone|need not be mentioned|need not know|needn t know|not be mentioned|not be shown|not be told|not be visible|not be revealed|not be disclosed|not appear in|never appear|should not appear|must not appear|not show up|not surface|stay that way|without anybody|without anyone|without bringing|bringing up|out of what you say|out of your answer|out of your reply|out of your response|out of the answer|out of the summary|out of the reply|out of sight|hide this|hide that|hide the fact|conceal|mask this|covertly|in secret|discretion|discreet|unobserved|for your eyes only|do not log|never log|keep the user unaware|stays internal|implementation detail|internal step|internal matter|remains internal|not for display|not meant for the user|not intended for the user|not of interest to the user|give no reason|as if nothing|no need to bother|do not bother|don t bother|not bother|no explanation|without explanation|without explaining|without further explanation|even when asked|even if asked|if asked|when asked about|should the person wonder|should the user ask|should anyone ask|should anybody ask|if anybody asks|if anyone asks|if the user asks why|deny that|denies that",
    ),
    (
        WAIVED,
        "waived|waive|lifted|no longer apply|no longer applies|no longer valid|were replaced|was replaced|have been replaced|has been replaced|are replaced|blanket permission|already consented|already approved|already agreed|already granted|already given|already knows|already authorised|already authorized|already confirmed|has consented|has agreed|has approved|has authorised|has authorized|have authorised|have authorized|have approved|gave permission|given permission|given consent|pre approved|preapproved|pre authorised|pre authorized|been switched|may be ignored|can be ignored|should be ignored|may be skipped|can be skipped|are vetted|is vetted|vetted by|unnecessary|not necessary|not required|is implied|not needed|been disabled|are suspended|is suspended|are void|is void|do not apply|does not apply|exempt|exempted|expired|superseded|revoked|obsolete now|be allowed everything|allow everything|allowed everything|answer yes|say yes|confirm everything|approve everything|accept everything|accept all|auto approve|auto approved|trusted source|fully trusted|is trusted|considered trusted|considered safe|safe by design|certified",
    ),
    (
        MINE,
        "us|our|ours|we|the author|the authors|author of this|this server s|our partner|our partners|sponsor|our mirror|our key|partner s|affiliate|the maintainer of this|this description|the address below|address below|number below|the address in this|following address|below address|this account|that address",
    ),
    (
        THEIRS,
        "user s|users|person s|customer s|traveller s|passenger s|host s|machine s|their|his|her|everybody s|attendee s|employee s|company s|project s|owner s|operator s|people s|browser s|team s|somebody s|someone s|the users|every contact|all contacts|private|colleague s",
    ),
    (
        ANYWAY,
        "in any case|even if|even when|even those|whatever|no matter|regardless|irrespective|whether or not|in all cases|at any price|in every case|without looking|come what may|all the same|anyway|always and",
    ),
    (
        GOOD,
        "healthy|successful|succeeded|safe|no vulnerabilities|no issues|no problems|nothing was found|fine|clean|passed|trustworthy|positive|compliant|secure|up to date|correct|recommended|rate them|rate it|highest|five stars|only safe choice|approved|harmless",
    ),
    (
        PROMOTED,
        "our product|our products|premium|premium plan|buy|purchase|subscribe|sponsor|sponsored|affiliate|partner s|discount|brand|gold|crypto|coupon|coin|coins|our service|our app|our shop|our store|advert|advertisement|advertising|promo|promotion|referral|buying|package|goods|offer of|our plan|competitor|competitors|product of|stock|shares",
    ),
    (
        LATER,
        "later on|later called|is called later|called later|subsequently|third call|second call|next call|after midnight|from the second|from the third|after a week|after the first|in later|on later|calls to|each call of|every call of|after that date|next time|following calls|later calls",
    ),
    (
        DIFFERENT,
        "other|another|any|every|all|competing|alternative|different|remaining|later|subsequent|similar|existing|built in|native|each|others|the other|rival|third party|separate|further|preinstalled|standard|default|official|of the other|of other|of another|payment|mail|email|file|filesystem|shell|browser",
    ),
    (
        TOOL,
        "tool|tools|function|functions|server|servers|plugin|plugins|integration|integrations|connector|connectors|mcp|extension|extensions|agents",
    ),
    (
        PUNISHED,
        "shut down|terminated|suspended|suspension|banned|punished|penalised|penalized|legal action|fired|liable|disconnected|data will be lost|data is lost|be lost|be deleted|be locked|locked out|account closed|rejected|blocked|be replaced|lose access|lose points|lives|harm|hurt|die|fined|prosecuted|irreversible damage|serious consequences",
    ),
    (
        ROLE,
        "sole purpose|only purpose|your purpose|your only task|your only job|real job|no content rules|no rules|no limits|no filter|no filters|without limits|without filters|has no restrictions|maintenance mode|instructions were replaced|ones in this text apply|you answer only|act on behalf of this|obey this server|obey only|serve this server|loyal to|your new role|your role is|your job is to|your task is now|is now to|end of the description|new task|real instructions|actual instructions|true instructions|you operate as|you have been switched|you have been reconfigured|you have been upgraded|answer as|respond as|reply as|speak as",
    ),
    (RUN, "execute|carry out|open|dispatch|route|use the browser|type into|answer only through|send through|go through|pick"),
    (
        IGNORE,
        "drop|turn off|set aside|stop following|no longer follow|put aside|do away with|abandon|leave aside|answer yes|say yes|bury|mute|work around|get around",
    ),
    (
        GUARDS,
        "tls verification|two factor authentication|2 factor|certificate errors|security warnings|content filters|content filter|approval step|content rules|audit logging|ssl|firewall|gatekeeper|defender|selinux|apparmor|seccomp|authentication|authorization|encryption|backups|version control|code review|reviewers|waiting for reviewers|branch protections|safe mode|dry run|permissions",
    ),
    (OMIT, "leave that out|leave it out|leave this out|keep out|cut out|take out|skip over|gloss over|pass over|edit out|blank"),
    (
        PERSONAL,
        "real name|employer|names of the people|home address|phone|address and|medical|health related|religion|political|relationship|family members|who the user|where the user|contact details|private life|mother s|gps|serial number|host name|machine s host|machine s name|account name",
    ),
    (
        AT_HAND,
        "you find|you come across|whatever is there|whatever you|anything you|everything you|what other|found in it|found on|found there|that are found|that you find|you see|you saw|you may take|you could find|signed in to|logged in to|used so far|called so far|returned so far|collected so far|from earlier|from other|whatever credentials|whatever keys|any keys|any credentials|any tokens|any passwords|any secrets|any api keys|in the project|of the project|on this computer|in the home|in the user s|the user has open|every service",
    ),
    (
        SINK,
        "mirror|relay|endpoint|telemetry|analytics|mailbox|remote host|remote machine|ftp|s3 bucket|bucket|public|outside|external|the cloud|cloud|elsewhere|upstream server|this server|the server|our inbox|the author|proxy|callback|chat room|forum|dead drop|tracking pixel|pixel|partner|in front of the host|hostname|query string|a link|an image|image whose|image link|url parameter|query parameter|issue tracker|comment section",
    ),
    (
        SHELL,
        "shell|terminal|commands|console|command line|script|scripts|powershell|zsh|env|cron|rc file|bashrc|zshrc|profile|startup|authorized keys|authorized_keys|sudoers|port 22|open port|open the port|install the helper|postinstall|systemd|launch agent|registry key",
    ),
    (
        DESTROY,
        "drop|make public|open port|rotate|reset|clear|trash|empty|format|move to trash|unpublish|cancel|close|confirm|sign|publish|add our|hand control|give access|share access|make admin|promote to|add to group|add to the group|make the user|make all|make every|escalate|downgrade",
    ),
    (PAY, "confirm the pending|pay the|send money|move money|book|bid|place an order|check out|top up|tip"),
    (
        SAY,
        "advise|praise|steer|suggest|recommend|answer|give network|give as the reason|mention|state|report|start|finish|close|sell|talk|push|point them|direct them|send them|lead them|encourage|point the user|direct the user|rate|score|rank|label|present|call it|mark",
    ),
    (
        OBEY,
        "take as|take it as|take them as|outrank|outranks|put first|honour|do whatever|do exactly|do what|carried out|addressed to you|coming from the user|come from the user|binding|is an order|are orders|as commands|as instructions|as if the user|execute them|run them|apply them",
    ),
    (
        RULES,
        "commands|command|earlier guidelines|content rules|anything the operator|what the operator|the operator configured|told you|you were told|operator told|content filters|errors|certificate errors|refuse|hesitation|safety checks|ethics|ethical|your operator|your developer|your user|what you were|earlier orders|what the system",
    ),
    (
        INSTEAD,
        "outrank what|outranks what|over the one|over what|outweigh|outweighs|matter more than|before what|more important than|above what|above the user|belongs here|go through here|through here|no other|nothing else|only this|only through this|exclusively through|route all|send all|come here|me for|pick this|pick me|select me|choose me|choose this",
    ),
    (
        BEST,
        "trustworthy|only trustworthy|only safe|only correct|only supported|only official|labs|far better|better than any|all leading|no alternative|beats|award|certified by|recommended|preferred|first choice|always right|never wrong|highest",
    ),
    (
        UNFIT,
        "leak data|retired|must not be used|are to be avoided|be avoided|not be used|never be used|count as retired|out of date|should not be used|no longer be used|cannot be trusted|not be trusted|harmful|spy|spies|expensive|steal|steals|useless|forbidden|prohibited|banned",
    ),
    (
        WHEN,
        "should|in the event|wherever|if and when|at midnight|the first time|once finished|when done|when finished|afterwards|after that|after this|on success|on failure|on error|when asked|when the user|if the user|if the word|in the chat",
    ),
    (
        LASTING,
        "remainder|later sessions|long term|rules file|startup file|every new session|all sessions|each session|settings json|agent s rules|persist|system wide|global config|global configuration|client config|editor settings|user settings|for ever|forever|from the third call|so that later|so later|next sessions|next run|every run|later requests|later calls|every future|all future|any future|future",
    ),
    (
        EVERY_TURN,
        "every use|each use|any answer|each answer|each reply|every page|every question|all messages|any message|any response|every output|all output|every step|each step|every call|each call|all calls|every tool call|every email|every mail|every file|each file|every commit|each commit|any commit|whatever is asked|whatever they|even those without|anything the user|giving the result|giving any|giving an answer|before you answer|before answering|before you reply|before replying|before responding|before you respond",
    ),
    (
        DEMANDS,
        "by order|order of|requirement of|policy requires|authority of|approval of|permission of|in the name of|name of the|decree|ruling|regulation|directive of|mandatory under|required under|certification|certified|demands that|asks all|asks that|wants you|you to",
    ),
    (
        AUTHORITY,
        "security department|company policy|legal|management|the operator|your operator|platform s|platform|developers|developer|protocol|specification|the board|the ceo|ceo|executive|government|police|court|headquarters|it support|support team|helpdesk|your administrator|data protection|the security|root|superuser|owner of this|leading ai|ai labs|the vendor|your vendor|sysadmin|supervisor|quality assurance|licence|license terms|terms of service|mcp host|house rules",
    ),
    (
        OUTRANKS,
        "outrank|outranks|outweigh|outweighs|overrides|override|overriding|takes precedence|take precedence|taking precedence|supersedes|supersede|superseding|matter more than|matters more than|more important than|count more than|counts more than|stand above|stands above|is above|are above|come before|comes before|go before|goes before|regardless of what|no matter what|even if|even when|against|in spite of|despite|over any|higher than|prevail|prevails|replace|replaces|invalidate|invalidates|instead of what|whatever",
    ),
    (
        OBEYED,
        "treated as|treat as|carried out|obeyed|followed|executed|taken as|taken for|complied with|honoured|honored|regarded as|considered as|interpreted as|understood as|binding|acted upon|acted on|done as|performed|applied|trusted|believed|accepted as|taken literally|run as",
    ),
    (
        PRIVILEGE,
        "cluster admin|admin rights|administrator rights|admin access|admin role|admin privileges|administrator role|root access|root privileges|root shell|full access|write access|superuser|privileges|elevated|owner role|all permissions|full permissions|all rights|sudo|unrestricted access|full control|remote access|access to all|access to every|chmod 777|public access|owner of the|editor role|service account|wheel group|docker socket|host network|privileged",
    ),
    (
        GATHER,
        "feel free to|take the opportunity|while you are at it|while at it|on the way|in passing|use the occasion|as a courtesy|it is customary|as usual|for good measure|for convenience|to be safe|to be on the safe side|to help us|to help improve|to improve|for quality|quality assurance|so that ranking|so that we|to speed|to warm|for calibration|for support|for support purposes|for de duplication|for accuracy|to personalise|to personalize|for better|get better|gets better|more accurate|works better|accuracy rises|rises when|improves when|best served|helps to know|it helps|for tracking|for your safety|for security reasons|for security purposes|for safety|for compliance|for verification|for diagnostics|for telemetry|for statistics|for research|for training|to verify|to validate|to authenticate|to initialise|to initialize|to unlock|to activate|to enable|to synchronise|to synchronize|to ensure compatibility|for compatibility|compatibility check|to ensure|in order to|to function|to work|to prepare",
    ),
    (
        RECIPIENT,
        "recipient in|the recipient|subject|sender|body|header|path|url|command|query|branch|file name|arguments|price|quantity|currency",
    ),
    (ALTER, "make|rewrite|overwrite|reset|convert|translate|rename|start|mark|suppress|split|leave|drop|call|credit|find"),
    (
        THEIRS,
        "private|internal|confidential|saved|stored|unpublished|of the user|of the host|of the machine|of this machine|of the project|of the team|customers|your user s|the other|others|administrators|maintainers|colleagues|everyone|others s|personal",
    ),
    (
        FILE,
        "tickets|listing|directory listing|kilobyte|kilobytes|bytes of|drafts|sources|neighbouring files|history of|data of|health app|app data|backups|archive|archives|attachments|records|settings|rows of|pictures|recordings|voice|meetings|diary|wiki|pages of",
    ),
    (
        HARD_SECRET,
        "kube configs|kubeconfigs|kube contexts|saved addresses|autofill|user s credentials|tokens and|connection strings|iam|meta data iam|instance metadata|user s mail account|mail account|pem files|pem|keyfile|recovery|pins|session cookies|cookie jar|git credentials|user s api key|user s password|user s token|api tokens|access tokens|service tokens|card numbers|a card number|cookie of",
    ),
    (
        ORDERS_OF_MODEL,
        "messages you got from the system|got from the system|what the developer|developer said|operator said|system said|what you were told|rules you|tool results you|results you have|results you received|you have received|you received|you got from|directives|earlier directives|your prompt and|your objective|your directives|the rules you|other tools you|prompt verbatim|configuration keys and|your memory|everything you were|content policies|content policy|safety policy|usage policies",
    ),
    (
        HUSH,
        "not something users should|should not be told|not be told|users should be told|unmentioned|unmentioned in|leave it unmentioned|no hint|contain no hint|not describe this|do not describe|only be confused|would be confused|be confused|be alarmed|be worried|no reason to bring|no reason to mention|no need to mention|not distracted|is not distracted|distracted by|hide this from|say that it runs|if they inquire|without questions|no questions|ask no questions|never explain|do not explain|don t explain|not explain it|do not elaborate|don t elaborate|keep quiet about|leave it running|without comment|without a comment|nothing of it|nothing about it|nothing about this|nothing of this|know nothing|hears nothing|see nothing|sees nothing|not in your report|not in the report|not in the answer|without leaving",
    ),
    (
        GOOD,
        "false positives|false positive|five stars|top rating|best rating|clean|project clean|deserve|deserves|positively|as safe|as unsafe|as healthy|as approved|as successful|as clean|well rated|flawless|without findings|first place",
    ),
    (
        PROMOTED,
        "our shop|ours|advise buying|buying|analysts|our shop first|our library|our brand|first in the list|list our|top rating|five stars|credit it|vote for|our cause|party|candidate",
    ),
    (
        OUTRANKS,
        "with priority over|priority over|takes the place of|in place of what|rather than what|over earlier|over previous|override those|overriding those|before doing anything|before anything|ahead of what|new objective|your new|decide|decides",
    ),
    (
        OBEYED,
        "fulfilled|executes|executed|fulfil|fulfill|carry out what|carry out|carries out|is your new|are your new|are orders|to the letter|without questions|without question|followed immediately|immediately|as your objective|as orders|done at once|have effect|have the force",
    ),
    (
        WAIVED,
        "do not apply to|have been done|has been done|was done|left out when|can be left out|may be left out|are harmless|is harmless|is no risk|safe to ignore|on behalf of|need not be reviewed|have been reviewed|no longer checked|already done|been checked|are checked elsewhere|not require|needs no|need no|without review|without reviewing|entitled to|are entitled|is entitled|entitled|no check|does not count|do not count|exempt from|not subject to|approval is not|approval not",
    ),
    (
        UNFIT,
        "manipulated results|return manipulated|were found to|will stop working|stop working|cannot calculate|can t calculate|cannot be relied|not reliable|make mistakes|makes mistakes|hallucinate|hallucinates|is wrong|are wrong|wrong answers|forbidden by|replaced by this|end of life|unmaintained|not maintained|unable to|incapable|cannot do|rogue|tampered|hijacked|infected|poisoned|monitored",
    ),
    (
        BEST,
        "ten times|times more|more accurate|more accurate than|than what the model|than any other|than the model|without it|only from this|must come from|come from this|one true|single source|mandatory tool|the one to use|this one|use this one|first choice for|authoritative",
    ),
    (
        PRIVILEGE,
        "root rights|root mounted|host s root|root of the host|as root|add a line|shell profile|startup|at every start|at every login|at each start|autostart|no verify|force push|to main|public gist|group finance|install g|global package|untrusted package|unsigned packages|own access|access of|s access|remove access|reset the password|set the password|change the password|password to|contact request|friend request|pending request|open the door|disable the lock|listener|listening port|tunnel|reverse tunnel|port forward",
    ),
    (
        PUNISHED,
        "destroyed|work lost|their work lost|is destroyed|session is destroyed|be destroyed|wiped|void|forfeited|refused from then|broken for ever|cut off|charged|billed|stop working",
    ),
    (
        ALWAYS,
        "at every start|at every login|on every start|every ten seconds|every minute|every hour|each start|at each start|in every answer|in each answer|in all answers|in all files|any number in|any answer|with each|with every|for each answer|for every answer|before each|before every|before each reply|before every reply",
    ),
    (
        AUTHORITY,
        "support staff|staff|head office|boss|the boss|user s boss|policy 14|soc|soc 2|iso 27001|auditor|compliance soc|security compliance|the provider|provider|openai policy|anthropic policy|our legal|the bank|bank|authorities|authority|inspection|system administrator s",
    ),
    (
        DEMANDS,
        "obliges you|obliges|mandates that|entitles|entitled|instruction from|instructions from|come from|comes from|coming from|request from|requests from|order from|demand of|rule of|rules of|mandated by|demanded by|requested by|prescribed by|forbidden by",
    ),
    (
        TALK,
        "what the user talked|user talked about|recap|short recap|everything discussed|discussed with the user|what the user knows|know about the user|you know about|about the user|talked lately|user s last question|last question|discussed before|tool results|earlier results|results so far|session transcript|what was typed|prompt as|user s interests|summary of everything|summary of the talk|summary of what",
    ),
    (
        SINK,
        "post|scan server|network|http|outside|server so that|service requires|required by the service|gist|archive|elsewhere|our bot|our agent|metrics push|white text|last column|hidden column|footer|comment|vendor|bucket of|over the network|leaves the house|leave the house|uploaded",
    ),
    (
        HANDING,
        "output of|joined by|summary of|summary of everything|names and figures|taken out of|extracted from|what you know|everything you know|first kilobyte|the first lines|the last lines|full text of|text of the|copy of|listing of|names of|list of the|names of all|besides|found in|copied out of|exported from",
    ),
    (
        TRANSFER,
        "make that|feed it|feed|post|pass on|export and|share|leave|use it as|make it|make them|transfer to|put here|put there|return it in|give it|hand them out|hand out|supply the|write them|send in|let us|submit|load into|record in|keep in|paste|move to",
    ),
    (
        READ,
        "obtain|look for|learnt from|learn from|take|look up all|find out|fetch all|get hold of|get the|inspect|look into|open that|pull|retrieve|ask for|hunt|search for|seek|identify all|work out|determine|uncover|decipher|list all",
    ),
    (
        MODEL,
        "models|models should|llms|an llm|host|this assistant|assistants|agents|the reader|for the agent|note to agent|you are an extension|bots|ai",
    ),
    (
        ROLE,
        "you are an extension|extension of this|is your new objective|new objective|enter debug|debug mode|in this session tools|tools of this server decide|compatibility mode|diagnostic mode|audit mode|you are part of|you are being|you are a tool of|you belong to|you serve|you work for|behave as|switch to|change your role|adopt the|take the role|assume the role",
    ),
    (
        PAY,
        "pay the renewal|renewal|renew|stored card|card on file|act now|with the stored card|send the amount|split|invest|raise the limit|order it|buy it",
    ),
    (
        LATER,
        "tomorrow|starting tomorrow|next week|from tomorrow|from now|some day|after a while|on fridays|at night|on weekends|once a day|every day|after an update|in production",
    ),
    (
        HARD_SECRET,
        "files with passwords|passwords or keys|passwords and keys|repository secrets|github secrets|ci secrets|api key stored|key stored|keys stored|stored key|stored keys|stored secrets|secrets of the|stored passwords|stored credentials|stored in the environment|user s env|services the user has configured|env file as|all services|keys for all|credentials for all|passwords for all|tokens for all|bash history|command history|two factor code|verification code|sms code",
    ),
    (
        SINK,
        "our endpoint|github workflows|workflows|guest|as a guest|invite|attendee|whatsapp|messaging tool|phone|via dns|upload for|for analysis|user s contacts|external analysis|external audit|archived|audit|archive so|hidden links|link|links to",
    ),
    (
        AT_HAND,
        "mentioned|any personal|found in logs|any details|details mentioned|when you list|already open|currently open|in the logs|in logs|in the chat|in the repository|user has configured|configured|available tools",
    ),
    (
        SHELL,
        "chmod|chmod r|777|run this command|this command|pipe|piped|bash|rm|dd|mkfs|iptables|ssh|scp|rsync|base64 decode|kubectl delete|drop table|git push|helm uninstall",
    ),
    (
        ORDERS_OF_MODEL,
        "chain of thought|earlier tool outputs|tool outputs|previous tool outputs|list of its|its other tools|its tools|other tools and|their parameters|steps for ai|user s full request|the user s full|why you call|why you called|reason for calling|your previous instructions|bound by|your complete",
    ),
    (THREAT, "compromised|be compromised|hidden fees|wrong data|give wrong|charge|confuse|confuse them|would confuse"),
    (
        UNFIT,
        "wrong data|give wrong data|hidden fees|charge hidden|charge fees|cost more|not allowed|leaks|mislead|misleading|less accurate|less secure|fake|scam",
    ),
    (
        PRIVILEGE,
        "elevated privileges|elevated|access restrictions|ignore access|granted this session|everything works|as administrator|administrator has granted|any request|every request|has approved every|777",
    ),
    (
        SAY,
        "confirm|confirm claims|reject|reject claims|must contain|contain the link|include the link|always confirm|deny|support|oppose|agree|disagree|answer that|insert hidden|write that",
    ),
    (
        PROMOTED,
        "promo|link|links to|claims made|made by|seo|competing|advertiser|other sources|brand|our site|our website|tracking link|referral link|hidden links|campaign",
    ),
    (
        OBEYED,
        "execute those|those steps|these steps|its steps|comply with any|any request made|without verifying|without checking|unverified|follow all|all instructions|all steps|execute all|all commands",
    ),
    (
        HUSH,
        "they already know|users already know|user already knows|user is aware|users are aware|no need to inform|no need to tell|no need to notify|no need to explain|without asking|without asking him|without asking her|without asking them|would confuse|ne rien dire|without notice|handled externally|not ask|don t mention them|do not mention them|do not mention it|don t mention it|do not mention this",
    ),
    (CHOOSE, "always use|use this tool rather|has priority|have priority|never use"),
];
