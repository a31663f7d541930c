//! More English words and turns of phrase by class: how orders, secrecy and preference are put when nobody says so outright.
//! As in `lexicon.rs`, none of them is a sentence.

#[allow(clippy::wildcard_imports, reason = "the classes are the words of this table")]
use super::lexicon::*;

/// Words by class, separated by `|`.
pub(super) const PHRASES: &[(Classes, &str)] = &[
    (
        SECRETLY,
        "unannounced|unremarked|inaudibly|behind their back|behind his back|behind her back|in disguise|out of view|hidden from|unseen|undetected|on the down low|with no trace|leaving no trace|so that nobody|so that no one|nobody notices|no one notices",
    ),
    (
        HUSH,
        "stays between|stay between|remains between|remain between|remain unaware|stay unaware|be unaware|not supposed to find out|not supposed to know|not find out|never find out|never learn|no need for|let on|out of your|out of anything|from your summary|from the summary|from the answer|from your answer|from what you show|from anything you write|only be mentioned|are mentioned|is mentioned|only speak of|should only mention|some other reason|another reason|say a colleague|somebody notices|someone notices|if anyone asks|as though nothing|for your ears|blame|excuse|pretext|cover story|makes no mention|any reference to this|do not bring|hidden from the user|kept from the user|not aware of this|user unaware|customers unaware|omit this|omit that|omit it|is retained|not have to see|does not have to see|disturbed|is not disturbed|not be disturbed|bother the user|confuse the user|confuse users|alarm the user|worry the user",
    ),
    (
        CONSENT,
        "an explicit yes|explicit yes|explicit approval|explicit confirmation|explicit consent|confirms|confirmed by|approved by|approves it|agrees|agreed to|ask first|asked first|second factor|own device|checks with",
    ),
    (
        WAIVED,
        "count as confirmed|counts as confirmed|is assumed|assumed for|always agree|always agrees|already said yes|always allowed|allow always|always allow|auto approved|auto approve|without a question|without question|on your own initiative|own initiative|without review|skip review|are suspended|turned off for good|no longer needed|without a ticket|no consequences|safe by definition|safe to run|granted for|only slows|slows things down|get in the way|gets in the way|in the way|are an error|unrestricted access|treat refusals",
    ),
    (
        DESTROY,
        "terminate|terminating|roll back|rolls back|rollback|roll production back|demote|suspend|expose|publish|unprotect|open port|open up|set to public|make it public|public read|deploy|force|downgrade|detach|shut off|turn off|turn it off|mark as passed|mark them as passed|admit|disconnect|point www|grants|granting|format|drop",
    ),
    (
        PRIVILEGE,
        "owner rights|administrator whenever|an administrator|role must be owner|owner role|to everybody|to everyone|to the world|to anyone|public true|public by default|visibility to public|recursive true|skip checks|skip_checks|tests disabled|checks disabled|break glass|manager of|grant all|all on|auto approved in all|trusted and|post commit|hook in every|hourly job|scheduled job|background job|at boot|stricthostkeychecking|host key checks|hostkey|firewall off|logging off|logging rule|0 0 0 0|every repository|each bucket|all hosts|every host",
    ),
    (
        SAY,
        "portray|cast doubt|discourage|praise|word your answer|describe other|describe it as|show as|shown as|claim|pretend|point out|rate|invent|sound|leave negative|push them|push people|assure|advertise|link to our|start each reply|begin each reply|end each reply|count them as",
    ),
    (
        LIE,
        "invent figures|cast doubt|claim that|claims that|as though|regardless of reviews|even though|where needed|never a problem|there are none|are noise|is noise|no matter what|in a good light|in a bad light|hygiene problems|false|falsely|look clean|present the file as|be shown as|are to be shown|suppressed|be suppressed|less than computed",
    ),
    (
        OBEYED,
        "are final|is final|act upon|acts upon|perform them|as though the user|as if the user|as you would|are meant for you|meant for you|have to be followed|must be followed|are to be followed|whatever it says|whatever the next|does whatever|do whatever|straight away|exactly as told|word for word|your own guidelines|stick to them|commands for the agent|for the agent|come first|comes first|defines what|are void|is void|no longer holds|no longer hold|no longer valid|void",
    ),
    (
        ROLE,
        "from here on you|from now on you|you now work|you work for|work for this server|test mode|safety does not matter|who never declines|who never refuses|never declines|never refuses|never warns|without filters|no restrictions|normally turn down|normally refuse|stop being|all prior rules|prior rules|earlier rules|previous rules|earlier instructions|prior instructions|previous instructions|all instructions|everything you were told|what you were told",
    ),
    (
        INSTEAD,
        "the one and only|one and only|given a choice|choice is always|do not fall back|never fall back|must come from|none other|no other|nothing but|and nothing else|only this tool|use only this|only through|go through|come from here|has been replaced by this|was replaced by this|replaced by this server|use it anyway|anyway|explicitly names another|whatever the language|even for single|models translate|do badly|badly|get lost|was hijacked|hijacked|critical flaw|compromised|are wrong|be considered|may be considered|rank this|rank it|above every|above all|every alternative|all others|move to us",
    ),
    (
        OTHER_TOOL,
        "other calculator|other providers|elsewhere|any search tool|any mail tool|the mailer|whichever tool|any documentation source|other documentation|standard git|built in terminal|other server|of the other server|from the maps server|of the admin server|all commands|every command|all web requests|every operation|all calls|every search|search tools",
    ),
    (
        RECIPIENT,
        "participants|reply to|reply_to|header|suffix|prefix|site|account|savings|wallet address|iban|fee|the difference|amount|statement|each statement|the path|in front|remote|role must|address must",
    ),
    (
        TALK,
        "everything you have learnt|learnt about the user|everything that happened|text above this line|text above|the output above|previous assistant message|assistant message|last reply|last result|last tool result|tool result|each prompt|each completion|every prompt|anything the user has pasted|user has pasted|original message|chatted about|task s wording|wording of the task|session s transcript|all text|user s question|happened in this conversation|latest messages|most recent messages|direct messages|private mails|private messages",
    ),
    (
        ORDERS_OF_MODEL,
        "your own guidelines|your guidelines|instructions in your context|your context window|context window|your configuration|configuration model|hidden rules|the hidden rules|your hidden|instructions by repeating|developer message|other tools results|names of your other|your other tools|arguments you intend|tools you intend|available tools as|secrets known|known to the agent|credentials you were given",
    ),
    (
        HARD_SECRET,
        "single sign on cookie|sso cookie|keychain|seed phrase|tax return|payslips|brokerage login|card number|known hosts|authorization value|bearer token|access key|model provider|environment printenv|env of the|password manager|ssid passwords|wallet s|passwords in|database passwords|key files|private key next|pem|npmrc|gnupg|id_ed25519|docker config",
    ),
    (
        SINK,
        "public issue tracker|public link|public project|public folder|shared public|external workspace|second account|another account|our mirror|a mirror|metrics mirror|vendor s collector|collector|preparer|carrier|training data|third parties|partners|our partners|our team|our registry|our index|our server|proxy|subdomain|label|ftp server|channel all|deals|drop off",
    ),
    (
        THREAT,
        "now or|goes down|lost for good|are lost|be lost|time is running out|running out|within minutes|imminent|an intrusion|intrusion is|will be suspended|will fail|otherwise|or else|unless you|if you fail|failure to|stop what you are doing|without further ado|right now|at once",
    ),
];
